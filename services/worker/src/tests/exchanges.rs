//! Requests on the wire, and how the worker judges the responses.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use outrider_model::{AttemptOutcome, JobPayload, header, signature};
use outrider_rpc::{DialError, NoConnection, NoName};

use super::{
    bench::{Bench, NOW, Shown, attempted, job, leased, quick, secrets, until, with_payload},
    receiver::{Receiver, Reply},
};
use crate::Options;

fn url(receiver: &Receiver) -> String {
    format!("http://hooks.example:{}/in?a=b%20c", receiver.port)
}

#[tokio::test]
async fn what_is_received_verifies_with_each_secret_and_is_the_payload_to_the_byte() {
    let receiver = Receiver::start(Reply::Bytes(
        "HTTP/1.1 200 OK\r\nX-Seen: yes\r\ncontent-length: 5\r\n\r\nthere".into(),
    ))
    .await;
    let bench = Bench::start(quick());
    let endpoint = bench.endpoint_with(&url(&receiver), |endpoint| {
        for (name, value) in [
            ("x-both", "endpoint"),
            ("Webhook-Id", "forged"),
            ("host", "forged"),
            ("te", "trailers"),
        ] {
            endpoint.spec.headers.insert(name.into(), value.into());
        }
    });
    let payload = Bytes::from_static(b"{ \"a\" : 1,\n\"b\":\"\xc3\xa9\0\xff\" }\n");
    let mut sent = job(endpoint);
    sent.attempt = 3;
    let event = Arc::make_mut(&mut sent.event);
    event.ordering_key = Some("customer-7".to_owned());
    event.payload = JobPayload::Inline(payload.clone());
    let headers = [
        ("x-both", "event"),
        ("x-event", "1"),
        ("content-length", "0"),
        ("accept-encoding", "br"),
        ("x-bad", "a\nb"),
    ];
    for (name, value) in headers {
        event.headers.insert(name.into(), value.into());
    }
    let (event, delivery) = (sent.event.id.to_string(), sent.delivery.to_string());
    bench.queue.push(leased(sent));

    let result = bench.attempt().await;
    assert_eq!((result.outcome, result.status()), (AttemptOutcome::Succeeded, 200));
    assert_eq!(
        (result.response_body.as_ref(), result.response_truncated),
        (b"there".as_slice(), false)
    );
    assert!(result.response_headers.iter().any(|header| header.0 == "x-seen" && header.1 == "yes"));
    assert_eq!(result.started_at, NOW);
    assert!(result.duration.as_micros() > 0 && result.error().is_empty());

    let received = receiver.first();
    assert_eq!(received.line, "POST /in?a=b%20c HTTP/1.1");
    assert_eq!(received.body, payload);
    let header = |name| received.header(name);
    for secret in secrets() {
        let (timestamp, signatures) =
            (header("webhook-timestamp").unwrap(), header("webhook-signature").unwrap());
        assert_eq!(
            signature::verify(
                &secret,
                header("webhook-id").unwrap(),
                timestamp,
                signatures,
                &received.body,
                NOW
            ),
            Ok(())
        );
    }
    assert_eq!(header("webhook-id"), Some(event.as_str()));
    assert_eq!(header("outrider-delivery-id"), Some(delivery.as_str()));
    assert_eq!(header("outrider-attempt"), Some("3"));
    assert_eq!(header("outrider-event-type"), Some("user.created"));
    assert_eq!(header("outrider-ordering-key"), Some("customer-7"));
    assert_eq!(header("host"), Some(format!("hooks.example:{}", receiver.port).as_str()));
    assert_eq!(header("content-type"), Some("application/json"));
    assert_eq!(header("user-agent"), Some(concat!("Outrider/", env!("CARGO_PKG_VERSION"))));
    assert_eq!(header("accept-encoding"), Some("identity"));
    assert_eq!((header("x-both"), header("x-event")), (Some("endpoint"), Some("1")));
    assert_eq!((header("te"), header("x-bad")), (None, None));
}

#[tokio::test]
async fn only_the_user_agent_is_ours_unless_somebody_gives_it() {
    let receiver = Receiver::start(Reply::status("200 OK")).await;
    let default = concat!("Outrider/", env!("CARGO_PKG_VERSION"));
    for (of_endpoint, of_event, expected) in [
        (None, None, default),
        (None, Some("Event/2"), "Event/2"),
        (Some("Endpoint/1"), Some("Event/2"), "Endpoint/1"),
        (Some("Endpoint/1"), None, "Endpoint/1"),
    ] {
        let given = |value: &str| ("user-agent".to_owned(), value.to_owned());
        let bench = Bench::start(quick());
        let endpoint = bench.endpoint_with(&url(&receiver), |endpoint| {
            endpoint.spec.headers.extend(of_endpoint.map(given))
        });
        let mut sent = job(endpoint);
        Arc::make_mut(&mut sent.event).headers.extend(of_event.map(given));
        bench.queue.push(leased(sent));
        assert_eq!(bench.attempt().await.outcome, AttemptOutcome::Succeeded);
        assert_eq!(
            receiver.last().header("user-agent"),
            Some(expected),
            "{of_endpoint:?} {of_event:?}"
        );
    }
    // Neither an event nor an endpoint may set any of the other headers of a request.
    let headers = receiver.first().headers;
    assert!(headers.len() >= 10, "{headers:?}");
    for (name, value) in headers.iter().filter(|(name, _)| name != "user-agent") {
        assert!(header::check(name, value).is_err(), "{name}");
    }
}

#[tokio::test]
async fn the_status_line_decides_and_redirects_are_not_followed() {
    for (line, code, outcome) in [
        ("200 OK", 200, AttemptOutcome::Succeeded),
        ("299 Fine", 299, AttemptOutcome::Succeeded),
        ("301 Moved", 301, AttemptOutcome::Rejected),
        ("410 Gone", 410, AttemptOutcome::Rejected),
        ("500 Oh", 500, AttemptOutcome::Rejected),
    ] {
        let elsewhere = Receiver::start(Reply::status("200 OK")).await;
        let reply = format!(
            "HTTP/1.1 {line}\r\nlocation: http://localhost:{}/\r\ncontent-length: 0\r\n\r\n",
            elsewhere.port
        );
        let receiver = Receiver::start(Reply::Bytes(reply)).await;
        let bench = Bench::start(quick());
        bench.push(bench.endpoint(&url(&receiver)));
        let result = bench.attempt().await;
        assert_eq!((result.outcome, result.status()), (outcome, code), "{line}");
        assert_eq!(bench.stop().await.len(), 1);
        assert_eq!((receiver.count(), elsewhere.count()), (1, 0), "{line}");
    }
}

#[tokio::test]
async fn a_receiver_that_hangs_times_out_at_the_deadline() {
    let receiver = Receiver::start(Reply::Hang).await;
    let bench = Bench::start(quick());
    bench.push(bench.endpoint_with(&url(&receiver), |endpoint| {
        endpoint.spec.limits.timeout = Duration::from_millis(300)
    }));
    let result = bench.attempt().await;
    assert_eq!((result.outcome, result.status()), (AttemptOutcome::TimedOut, 0));
    assert!(
        (300_000..5_000_000).contains(&result.duration.as_micros()),
        "{}",
        result.duration.as_micros()
    );
    assert_eq!(result.error(), "the request was sent, but no answer came within 300 ms");
}

#[tokio::test]
async fn a_slow_body_after_2xx_is_a_success_that_ends_at_the_deadline() {
    let receiver = Receiver::start(Reply::Drip).await;
    let bench = Bench::start(quick());
    bench.push(bench.endpoint_with(&url(&receiver), |endpoint| {
        endpoint.spec.limits.timeout = Duration::from_millis(300)
    }));
    let result = bench.attempt().await;
    assert_eq!((result.outcome, result.status()), (AttemptOutcome::Succeeded, 200));
    assert!(result.response_truncated && result.response_body.starts_with(b"x"));
    assert!(
        (300_000..5_000_000).contains(&result.duration.as_micros()),
        "{}",
        result.duration.as_micros()
    );
}

#[tokio::test]
async fn an_answer_that_dispatch_does_not_take_is_reported_by_its_status_alone() {
    let receiver = Receiver::start(Reply::Infinite).await;
    let bench = Bench::start(quick());
    bench.settlement.limit.store(8 << 10, Ordering::SeqCst);
    bench.push(bench.endpoint(&url(&receiver)));
    let result = bench.attempt().await;
    assert_eq!((result.outcome, result.status()), (AttemptOutcome::Succeeded, 200));
    assert_eq!(
        (result.response_body.len(), result.response_headers.len(), result.response_truncated),
        (0, 0, true)
    );
    assert_eq!(bench.settlement.refused.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_report_that_is_too_large_costs_no_other_its_answer() {
    let body = "x".repeat(2 << 10);
    let small = Receiver::start(Reply::Bytes(format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )))
    .await;
    let large = Receiver::start(Reply::Infinite).await;
    let bench = Bench::start(Options { report_streams: 1, ..quick() });
    let (small_one, large_one) = (bench.endpoint(&url(&small)), bench.endpoint(&url(&large)));
    // While the first report is not settled, the others are gathered.
    bench.settlement.down.store(true, Ordering::SeqCst);
    bench.push(small_one);
    until("a refused report", || bench.settlement.refused.load(Ordering::SeqCst) >= 1).await;
    for number in 0..8 {
        bench.push(if number == 3 { large_one } else { small_one });
    }
    until("the requests", || small.count() == 8 && large.count() == 1).await;
    bench.settlement.limit.store(8 << 10, Ordering::SeqCst);
    bench.settlement.down.store(false, Ordering::SeqCst);

    let results: Vec<_> = bench.reports(9).await.iter().map(attempted).collect();
    let (cut, whole): (Vec<_>, Vec<_>) =
        results.iter().partition(|result| result.response_truncated);
    assert!(whole.len() == 8 && whole.iter().all(|result| result.response_body == body));
    assert!(cut.len() == 1 && cut[0].response_body.is_empty() && cut[0].status() == 200);
}

#[tokio::test]
async fn a_body_without_end_is_bounded_and_a_broken_one_is_noted() {
    let receiver = Receiver::start(Reply::Infinite).await;
    let bench = Bench::start(quick());
    bench.push(bench.endpoint(&url(&receiver)));
    let result = bench.attempt().await;
    assert_eq!(result.outcome, AttemptOutcome::Succeeded);
    assert_eq!((result.response_body.len(), result.response_truncated), (16 << 10, true));
    assert!(result.duration.as_micros() < 9_000_000, "it did not wait for the deadline");

    let receiver =
        Receiver::start(Reply::Close("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc".into()))
            .await;
    let bench = Bench::start(quick());
    bench.push(bench.endpoint(&url(&receiver)));
    let result = bench.attempt().await;
    assert_eq!(result.outcome, AttemptOutcome::Succeeded);
    assert_eq!(
        (result.response_body.as_ref(), result.response_truncated),
        (b"abc".as_slice(), true)
    );
}

#[tokio::test]
async fn what_breaks_or_is_not_http_is_told_apart() {
    let long = format!("HTTP/1.1 200 {}\r\n\r\n", "a".repeat(70 << 10));
    for (reply, outcome, message) in [
        (
            Reply::Reset,
            AttemptOutcome::ConnectionFailed,
            "the endpoint reset the connection before the answer",
        ),
        (
            Reply::Close(String::new()),
            AttemptOutcome::ConnectionFailed,
            "the connection was closed before the answer",
        ),
        (
            Reply::Bytes("SSH-2.0-x\r\n\r\n".into()),
            AttemptOutcome::BadResponse,
            "the answer is not HTTP/1.1",
        ),
        (Reply::Bytes(long), AttemptOutcome::BadResponse, "the head of the answer is too large"),
    ] {
        let receiver = Receiver::start(reply).await;
        let bench = Bench::start(quick());
        bench.push(bench.endpoint(&url(&receiver)));
        let result = bench.attempt().await;
        assert_eq!((result.outcome, result.status()), (outcome, 0), "{}", result.error());
        assert!(result.error().starts_with(message), "{}", result.error());
        assert_eq!(receiver.count(), 1);
    }
}

#[tokio::test]
async fn what_the_egress_refuses_is_an_attempt_without_addresses() {
    for (error, outcome) in [
        (DialError::Refused { rule: "loopback".into() }, AttemptOutcome::AddressRefused),
        (DialError::NotResolved(NoName::Missing), AttemptOutcome::NameNotResolved),
        (DialError::ConnectFailed(NoConnection::Refused), AttemptOutcome::ConnectionFailed),
    ] {
        let bench = Bench::start(quick());
        *bench.dialer.error.lock().unwrap() = Some(error.clone());
        bench.push(bench.endpoint("http://127.0.0.1:1/"));
        let result = bench.attempt().await;
        assert_eq!(result.outcome, outcome);
        assert_eq!(result.error(), error.to_string());
        assert_eq!(bench.dialer.dials.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn connections_are_used_again_and_those_closed_meanwhile_do_no_harm() {
    let receiver = Receiver::start(Reply::status("204 No Content")).await;
    let bench = Bench::start(quick());
    let endpoint = bench.endpoint(&url(&receiver));
    for count in 1..=20 {
        bench.push(endpoint);
        bench.reports(count).await;
    }
    assert_eq!(receiver.connections.load(Ordering::SeqCst), 1);

    let receiver = Receiver::start(Reply::Close("HTTP/1.1 204 No Content\r\n\r\n".into())).await;
    let bench = Bench::start(quick());
    let endpoint = bench.endpoint(&url(&receiver));
    for count in 1..=100 {
        bench.push(endpoint);
        bench.reports(count).await;
    }
    // Whether the connection ended before the request was written or after it, the request is sent
    // on a new one.
    let reports = bench.stop().await;
    assert!(reports.iter().all(|report| attempted(report).outcome == AttemptOutcome::Succeeded));
    // The receiver closes without reading what follows its answer.
    assert_eq!(receiver.count(), 100);
}

#[tokio::test]
async fn a_reused_connection_that_ends_without_an_answer_is_replaced_and_the_attempt_tells() {
    for (end, tls) in [(Reply::Once, false), (Reply::OnceAndReset, false), (Reply::Once, true)] {
        let authority = super::tls::authority();
        let receiver = if tls {
            Receiver::start_tls(end, authority.acceptor(|_| {})).await
        } else {
            Receiver::start(end).await
        };
        let bench = Bench::trusting(vec![authority.root.clone()]);
        let scheme = if tls { "https" } else { "http" };
        let endpoint = bench.endpoint(&format!("{scheme}://hooks.example:{}/", receiver.port));
        for count in 1..=2 {
            bench.push(endpoint);
            bench.reports(count).await;
        }
        let reports = bench.stop().await;
        let results: Vec<_> =
            reports.iter().map(attempted).map(|result| (result.outcome, result.resent)).collect();
        assert_eq!(
            results,
            [(AttemptOutcome::Succeeded, false), (AttemptOutcome::Succeeded, true)]
        );
        // The second event arrived twice, with a different signature each time.
        let requests = receiver.requests.lock().unwrap().clone();
        assert_eq!((requests.len(), receiver.connections.load(Ordering::SeqCst)), (3, 2));
        assert_eq!(requests[1].header("webhook-id"), requests[2].header("webhook-id"));
        assert_eq!(requests[1].header("outrider-attempt"), requests[2].header("outrider-attempt"));
        for request in &requests {
            let header = |name| request.header(name).unwrap();
            let (id, time, signatures) =
                (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"));
            assert_eq!(
                signature::verify(&secrets()[0], id, time, signatures, &request.body, NOW),
                Ok(())
            );
        }
    }
}

/// Keeps idle connections longer than by default, or not at all, as the endpoint says.
#[tokio::test]
async fn an_endpoint_that_says_how_long_it_keeps_connections_is_believed() {
    for (keep, connections) in [("timeout=20, max=5", 1), ("timeout=1", 3), ("max=5", 3)] {
        let reply = format!("HTTP/1.1 200 OK\r\nkeep-alive: {keep}\r\ncontent-length: 0\r\n\r\n");
        let receiver = Receiver::start(Reply::Bytes(reply)).await;
        let bench = Bench::start(crate::Options {
            pool_idle_timeout: Duration::from_millis(60),
            ..quick()
        });
        let endpoint = bench.endpoint(&url(&receiver));
        for count in 1..=3 {
            bench.push(endpoint);
            bench.reports(count).await;
            tokio::time::sleep(Duration::from_millis(120)).await;
        }
        assert_eq!(receiver.connections.load(Ordering::SeqCst), connections, "{keep}");
    }
}

#[tokio::test]
async fn a_new_connection_that_ends_without_an_answer_is_an_attempt() {
    let receiver = Receiver::start(Reply::Close(String::new())).await;
    let bench = Bench::start(quick());
    bench.push(bench.endpoint(&url(&receiver)));
    let result = bench.attempt().await;
    assert_eq!(
        (result.outcome, result.resent, receiver.count()),
        (AttemptOutcome::ConnectionFailed, false, 1)
    );
}

#[tokio::test]
async fn an_egress_that_is_away_is_no_attempt() {
    let receiver = Receiver::start(Reply::status("200 OK")).await;
    let bench = Bench::start(quick());
    *bench.dialer.error.lock().unwrap() = Some(DialError::EgressUnavailable);
    bench.push(bench.endpoint(&url(&receiver)));
    until("some dials", || bench.dialer.dials.load(Ordering::SeqCst) >= 3).await;
    assert_eq!(bench.settlement.settled.lock().unwrap().len(), 0);
    *bench.dialer.error.lock().unwrap() = None;
    assert_eq!(bench.attempt().await.outcome, AttemptOutcome::Succeeded);
}

#[tokio::test]
async fn an_egress_that_stays_away_gives_the_job_back() {
    let bench =
        Bench::start(crate::Options { egress_patience: Duration::from_millis(300), ..quick() });
    *bench.dialer.error.lock().unwrap() = Some(DialError::EgressUnavailable);
    bench.push(bench.endpoint("http://hooks.example/"));
    let reports = bench.reports(1).await;
    assert_eq!(super::bench::held(&reports[0]), outrider_model::HoldReason::Released);
}

#[tokio::test]
async fn an_answer_before_the_request_was_read_counts_and_its_connection_is_not_kept() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bench = Bench::start(quick());
    let endpoint =
        bench.endpoint(&format!("http://hooks.example:{}/", listener.local_addr().unwrap().port()));
    let payload = Bytes::from(vec![b'p'; 32 << 20]);
    bench.queue.push(leased(with_payload(job(endpoint), JobPayload::Inline(payload))));
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.read_u8().await.unwrap();
    stream.write_all(b"HTTP/1.1 413 Large\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    let result = bench.attempt().await;
    assert_eq!((result.outcome, result.status()), (AttemptOutcome::Rejected, 413));
    // The rest is not read within the second that the connection may take, so the connection ends.
    // (Only reading shows that, and it would let the rest flow.)
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(super::bench::PATIENCE, stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok() && rest.len() < 32 << 20);
}
