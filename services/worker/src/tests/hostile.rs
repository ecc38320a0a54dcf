//! Endpoints whose answers are expensive, or break off.

use std::{sync::atomic::Ordering, time::Duration};

use outrider_model::{AttemptOutcome, JobPayload};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{
    bench::{Bench, Shown, attempted, job, leased, quick, with_payload},
    scripted::{
        Act, CHUNKED, Hostile, OK, attempt, deliver, deliver_by_tls, is_bad, is_soon, send,
        succeeds,
    },
    tls::authority,
};
use crate::Options;

#[tokio::test]
async fn eight_interim_answers_are_read_and_no_more() {
    let interim = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    let result = deliver(vec![send(interim.repeat(4)), send(interim.repeat(4)), send(OK)]).await;
    assert_eq!(
        (result.outcome, result.response_body.as_ref()),
        (AttemptOutcome::Succeeded, b"ok".as_slice())
    );
    is_bad(vec![send(interim.repeat(9) + OK)], "more than 8 interim answers").await;
    is_bad(vec![Act::Repeat("HTTP/1.1 100 Continue\r\n\r\n")], "more than 8 interim answers").await;
    is_bad(vec![Act::Repeat("HTTP/1.1 199\n\n")], "more than 8 interim answers").await;
}

#[tokio::test]
async fn every_exchange_on_a_connection_has_its_own_interim_answers() {
    let hostile = Hostile::start(vec![send("HTTP/1.1 100 Continue\r\n\r\n".repeat(8) + OK)]).await;
    let bench = Bench::start(quick());
    let endpoint = bench.endpoint(&format!("http://hooks.example:{}/", hostile.port));
    for count in 1..=10 {
        bench.push(endpoint);
        let reports = bench.reports(count).await;
        assert_eq!(attempted(&reports[count - 1]).outcome, AttemptOutcome::Succeeded);
    }
    assert_eq!(bench.dialer.dials.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn heads_are_bounded_with_what_comes_before_them() {
    let too_large = "the head of the answer is too large";
    let interim = format!("HTTP/1.1 102 Processing\r\nx: {}\r\n\r\n", "a".repeat(30 << 10));
    is_bad(vec![send(interim.repeat(3) + OK)], too_large).await;
    is_bad(vec![Act::Repeat("\r\n")], too_large).await;
    is_bad(vec![send("HTTP/1.1 200 "), Act::Repeat("O")], too_large).await;
    is_bad(
        vec![Act::Drip(format!("HTTP/1.1 200 {}", "a".repeat(100)))],
        "more than 64 pieces on the wire for one exchange",
    )
    .await;
}

#[tokio::test]
async fn whatever_comes_after_a_2xx_status_line_it_is_a_success_once() {
    for acts in [
        vec![send(CHUNKED.trim_end()), Act::Repeat("\r\nx: y")],
        vec![send("HTTP/1.1 200 OK\r\n"), Act::Repeat("x")],
        vec![Act::Drip(format!("HTTP/1.1 200 OK\r\nx: {}", "a".repeat(100)))],
        vec![send("HTTP/1.1 200 OK\r\n"), Act::Close],
        vec![send("HTTP/1.1 200 OK\r\nx"), Act::Pause, Act::Reset],
        vec![send("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nabc"), Act::Hang],
        vec![
            send("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc"),
            Act::Hang,
        ],
        vec![
            send(
                "HTTP/1.1 200 OK\r\ntransfer-encoding\u{b}: chunked\r\ncontent-length: 3\r\n\r\n\
                    abc",
            ),
            Act::Hang,
        ],
    ] {
        let result = succeeds(acts).await;
        assert!(is_soon(&result), "{} µs", result.duration.as_micros());
    }
    let late = "HTTP/1.1 200 OK\r\nx: y\r\n";
    let hostile = Hostile::start(vec![send(late), Act::Hang]).await;
    let bench = Bench::start(quick());
    let url = format!("http://hooks.example:{}/", hostile.port);
    bench.push(
        bench.endpoint_with(&url, |endpoint| {
            endpoint.spec.limits.timeout = Duration::from_millis(300)
        }),
    );
    let result = bench.attempt().await;
    assert_eq!((result.outcome, result.status()), (AttemptOutcome::Succeeded, 200), "{result:?}");
    assert!(
        (300_000..5_000_000).contains(&result.duration.as_micros()) && result.response_truncated,
        "{result:?}"
    );
    // The same holds for other statuses.
    for (acts, status) in [
        (vec![send("HTTP/1.1 500 Oh\r\nx"), Act::Close], 500),
        (vec![send("HTTP/1.0  410\nno colon\n\n"), Act::Close], 410),
    ] {
        let result = deliver(acts).await;
        assert_eq!(
            (result.outcome, result.status()),
            (AttemptOutcome::Rejected, status),
            "{result:?}"
        );
    }
}

/// The HTTP library would refuse these heads, but they say where their bodies end, so the whole
/// answer is read.
#[tokio::test]
async fn irregular_heads_are_read() {
    let cookies = "set-cookie: a=b\r\n".repeat(120);
    let large = format!("set-cookie: {}\r\n", "a".repeat(20 << 10));
    for fields in [
        "x-a: a\r\n b\r\n",
        " first\r\n",
        "x-a : b\r\n",
        "no colon\r\n",
        ": v\r\n",
        "n\u{e9}: v\r\n",
        "x-a: \0\r\n",
        "x-a: b\rc\r\n",
        "x-a: b\n",
        "content-length: 2, 2\r\n",
        &cookies,
        &large,
    ] {
        for framing in [
            "content-length: 2\r\n\r\nok",
            "transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ] {
            let acts =
                vec![send(format!("HTTP/1.1 200 OK\r\nx-z: 1\r\n{fields}{framing}")), Act::Hang];
            let result = deliver(acts).await;
            assert_eq!(
                (result.outcome, result.status()),
                (AttemptOutcome::Succeeded, 200),
                "{fields:?}: {result:?}"
            );
            assert_eq!(
                (result.response_body.as_ref(), result.response_truncated),
                (b"ok".as_slice(), false),
                "{fields:?}"
            );
            let names: Vec<_> =
                result.response_headers.iter().map(|header| header.0.as_str()).collect();
            assert!(names.contains(&"x-z") && !names.contains(&"connection"), "{names:?}");
            assert!(names.len() <= 64 && is_soon(&result), "{names:?}");
        }
    }
}

#[tokio::test]
async fn where_there_is_doubt_the_connection_is_not_used_again() {
    let forged = "HTTP/1.1 500 Forged\r\ncontent-length: 0\r\n\r\n";
    for head in [
        "x-a : b\r\ncontent-length: 2\r\n\r\nok",
        "transfer-encoding\u{b}: chunked\r\ncontent-length: 2\r\n\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 7\r\n\r\n2\r\n",
    ] {
        let hostile =
            Hostile::start(vec![send(format!("HTTP/1.1 200 OK\r\n{head}{forged}"))]).await;
        let bench = Bench::start(quick());
        let endpoint = bench.endpoint(&format!("http://hooks.example:{}/", hostile.port));
        for count in 1..=5 {
            bench.push(endpoint);
            let reports = bench.reports(count).await;
            let result = attempted(&reports[count - 1]);
            assert_eq!(
                (result.outcome, result.status()),
                (AttemptOutcome::Succeeded, 200),
                "{head:?}: {result:?}"
            );
        }
        assert_eq!(
            (hostile.count(), bench.dialer.dials.load(Ordering::SeqCst)),
            (5, 5),
            "{head:?}"
        );
    }
}

#[tokio::test]
async fn a_switch_of_protocols_is_a_bad_response_at_once() {
    let message = "the endpoint switched protocols, which was not asked for";
    let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
    is_bad(vec![send(switch), Act::Hang], message).await;
    is_bad(vec![send(switch), Act::Repeat("x")], message).await;
}

#[tokio::test]
async fn bodies_that_cost_more_than_they_hold_are_bounded() {
    for acts in [
        vec![send(CHUNKED), Act::Repeat("1\r\nx\r\n")],
        vec![send(CHUNKED), Act::Repeat("1;a=b\r\nx\r\n")],
        vec![send(CHUNKED), send("1;"), Act::Repeat("x")],
        vec![send(CHUNKED), Act::Repeat("0")],
        vec![send(CHUNKED), send("1"), Act::Repeat(" ")],
        vec![send(CHUNKED), send("0\r\n"), Act::Repeat("a: b\r\n")],
        vec![send(CHUNKED), send("0\r\na: "), Act::Repeat("b")],
        vec![send("HTTP/1.1 200 OK\r\n\r\n"), Act::Repeat("x")],
        vec![send("HTTP/1.1 200 OK\r\ncontent-length: 9999999999\r\n\r\n"), Act::Repeat("x")],
        vec![send("HTTP/1.1 200 OK\r\n\r\n"), Act::Drip("x".repeat(100)), Act::Hang],
    ] {
        let result = succeeds(acts).await;
        assert!(is_soon(&result), "{} µs", result.duration.as_micros());
    }
}

#[tokio::test]
async fn a_body_that_breaks_after_2xx_is_a_success_and_is_not_sent_again() {
    let sized = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc";
    for (acts, body) in [
        (vec![send(sized), Act::Close], "abc"),
        (vec![send(sized), Act::Reset], "abc"),
        (vec![send(CHUNKED), send("3\r\nabc\r\n"), Act::Close], "abc"),
        (vec![send(CHUNKED), send("3\r\nabc\r\n"), Act::Reset], "abc"),
        (vec![send(CHUNKED), send("3\r\nabc\r\nzz\r\n"), Act::Hang], "abc"),
        (vec![send(CHUNKED), send("3\r\nabcdef\r\n"), Act::Hang], "abc"),
        (vec![send(CHUNKED), send("ffffffffffffffffff\r\n"), Act::Hang], ""),
        (vec![send(CHUNKED), send("3\r\nabc\r\n0\r\nbad trailer\r\n\r\n"), Act::Hang], "abc"),
    ] {
        let result = succeeds(acts).await;
        // A reset may overtake earlier bytes.
        assert!(result.response_body == body || result.response_body.is_empty(), "{result:?}");
        assert!(is_soon(&result), "{} µs", result.duration.as_micros());
    }
}

/// An endpoint may answer without reading the whole request, and close. The rest of the request
/// then meets a reset.
#[tokio::test]
async fn an_early_2xx_answer_counts_although_the_rest_of_the_request_meets_a_reset() {
    for answer in
        [OK, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n"]
    {
        for _ in 0..20 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let bench = Bench::start(quick());
            let endpoint = bench.endpoint(&format!("http://hooks.example:{port}/"));
            let payload = bytes::Bytes::from(vec![b'p'; 4 << 20]);
            let large = with_payload(job(endpoint), JobPayload::Inline(payload));
            bench.queue.push(leased(large));
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_u8().await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            drop(stream);
            let result = bench.attempt().await;
            assert_eq!(result.outcome, AttemptOutcome::Succeeded, "{answer:?}: {result:?}");
        }
    }
}

#[tokio::test]
async fn what_follows_an_answer_unasked_is_nobodys_answer() {
    for more in ["HTTP/1.1 500 Forged\r\ncontent-length: 0\r\n\r\n", "x", "\r\n"] {
        let hostile = Hostile::start(vec![send(format!("{OK}{more}"))]).await;
        let bench = Bench::start(quick());
        let endpoint = bench.endpoint(&format!("http://hooks.example:{}/", hostile.port));
        for count in 1..=50 {
            bench.push(endpoint);
            let reports = bench.reports(count).await;
            let result = attempted(&reports[count - 1]);
            assert_eq!(
                (result.outcome, result.status()),
                (AttemptOutcome::Succeeded, 200),
                "{count}: {result:?}"
            );
        }
        assert_eq!(hostile.count(), 50);
    }
}

#[tokio::test]
async fn a_body_that_breaks_below_tls_is_a_success_too() {
    let sized = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc";
    let authority = authority();
    for acts in [
        // An end without close_notify, in a body with a length and in one that ends with the
        // connection.
        vec![send(sized), Act::Close],
        vec![send("HTTP/1.1 200 OK\r\n\r\nabc"), Act::Close],
        vec![send(sized), Act::Reset],
        // A fatal alert in plain text, and a record that cannot be decrypted.
        vec![send(sized), Act::Garbage(&[21, 3, 3, 0, 2, 2, 80]), Act::Hang],
        vec![
            send(sized),
            Act::Garbage(&[
                23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19,
                20,
            ]),
            Act::Hang,
        ],
    ] {
        let result = deliver_by_tls(&authority, 2, acts).await;
        assert_eq!(
            (result.outcome, result.status()),
            (AttemptOutcome::Succeeded, 200),
            "{result:?}"
        );
        assert!(result.response_truncated && is_soon(&result), "{result:?}");
    }
}

#[tokio::test]
async fn what_tls_carries_beside_the_answer_is_bounded() {
    let authority = authority();
    let result = deliver_by_tls(&authority, 5_000, vec![send(OK)]).await;
    // The library's own bound on unprocessed bytes may come first.
    let bounded = [AttemptOutcome::BadResponse, AttemptOutcome::ConnectionFailed];
    assert!(bounded.contains(&result.outcome) && is_soon(&result), "session tickets: {result:?}");
    let result =
        deliver_by_tls(&authority, 2, vec![send(CHUNKED), Act::Repeat("1\r\nx\r\n")]).await;
    assert_eq!(
        (result.outcome, result.status()),
        (AttemptOutcome::Succeeded, 200),
        "small chunks: {result:?}"
    );
    assert!(result.response_truncated && is_soon(&result), "{result:?}");
    let result = deliver_by_tls(&authority, 2, vec![Act::KeyUpdates(100), send(OK)]).await;
    assert_eq!(result.outcome, AttemptOutcome::ConnectionFailed, "changes of keys: {result:?}");
    assert!(is_soon(&result));
}

#[tokio::test]
async fn a_handshake_without_end_is_bounded() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        // The beginning of a record of 16 KiB, whose rest arrives byte by byte.
        let _ = stream.write_all(&[22, 3, 3, 0x40, 0]).await;
        while stream.write_all(&[0]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let bench = Bench::start(Options { response_wire_reads: 64, ..quick() });
    let result = attempt(&bench, &format!("https://hooks.example:{port}/")).await;
    assert_eq!(result.outcome, AttemptOutcome::TlsFailed);
    assert_eq!(
        result.error(),
        "the TLS handshake failed: more than 64 pieces on the wire for one exchange"
    );
    assert!(is_soon(&result));
}
