//! Hostile clients: floods of HTTP/2 frames, slow bodies, requests that can be read in two ways.
//! The attacker is cut off, and other clients are served meanwhile.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use std::time::Duration;

use common::{BEARER, LONG, Running};
use outrider_gateway::Options;
use outrider_model::Reason;
use outrider_proto::ingest::{PublishEventRequest, PublishEventResponse};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

/// Sends bytes and returns what arrives until the gateway closes the connection.
async fn exchange(running: &Running, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    rest(&mut stream).await
}

/// Returns everything until the end of the connection, which may be a reset.
async fn rest(stream: &mut TcpStream) -> String {
    let mut came = Vec::new();
    let _ = timeout(LONG, stream.read_to_end(&mut came)).await.expect("the connection is closed");
    String::from_utf8_lossy(&came).into_owned()
}

async fn others_are_served(running: &Running) {
    assert_eq!(running.post("/v1/projects/p/events", "{}").await.status, 200);
}

#[tokio::test]
async fn requests_that_can_be_read_in_two_ways_are_refused() {
    let running = Running::start().await;
    let post =
        &format!("POST /v1/projects/p/events HTTP/1.1\r\nhost: t\r\nauthorization: {BEARER}\r\n");
    let smuggled = "0\r\n\r\nPOST /v1/projects/smuggled/events HTTP/1.1\r\nhost: t\r\n\
        content-length: 0\r\n\r\n";
    for bad in [
        format!(
            "{post}content-length: {}\r\ntransfer-encoding: chunked\r\n\r\n{smuggled}",
            smuggled.len()
        ),
        format!(
            "{post}transfer-encoding: chunked\r\ncontent-length: {}\r\n\r\n{smuggled}",
            smuggled.len()
        ),
        format!("{post}content-length: 0\r\ncontent-length: {}\r\n\r\n{smuggled}", smuggled.len()),
        format!("{post}content-length: 0\r\ncontent-length: 0\r\n\r\n"),
        format!("{post}content-length: +0\r\n\r\n"),
        format!("{post}content-length : 0\r\n\r\n"),
        format!("{post}transfer-encoding: chunked, identity\r\n\r\n{smuggled}"),
        format!("{post}transfer-encoding:\x0bchunked\r\n\r\n{smuggled}"),
        format!("{post}a: b\r\n c\r\ncontent-length: 0\r\n\r\n"),
        format!("{post}a: b\ncontent-length: 0\r\n\r\n"),
        format!("{post}a: b\rcontent-length: 0\r\n\r\n"),
        format!("{post}content-length: 0\r\n\n"),
        "POST /v1/projects/p/events HTTP/1.1\nhost: t\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "POST /v1/projects/p/events HTTP/1.0\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\
            \r\n"
            .to_owned(),
        "POST /v1/projects/p/events HTTP/1.1\r\ncontent-length: 0\r\n\r\n".to_owned(),
        format!("{post}host: u\r\ncontent-length: 0\r\n\r\n"),
    ] {
        let answer = exchange(&running, bad.as_bytes()).await;
        assert!(
            answer.starts_with("HTTP/1.1 400 ") && answer.matches("HTTP/1.1 4").count() == 1,
            "{bad:?}: {answer}"
        );
        assert!(
            answer.contains("\"reason\":\"MALFORMED_REQUEST\"")
                && answer.contains("\"request_id\":\""),
            "{bad:?}: {answer}"
        );
        assert!(running.got.calls().is_empty(), "{bad:?}");
    }
    // In the chunks of a body that began well.
    for bad in [
        "2\n{}\r\n0\r\n\r\n",
        "2\r\n{}\n0\r\n\r\n",
        "0x2\r\n{}\r\n0\r\n\r\n",
        "2\r\n{}x\r\n0\r\n\r\n",
    ] {
        let answer =
            exchange(&running, format!("{post}transfer-encoding: chunked\r\n\r\n{bad}").as_bytes())
                .await;
        assert!(
            answer.starts_with("HTTP/1.1 400 ") && answer.contains("MALFORMED_REQUEST"),
            "{bad:?}: {answer}"
        );
    }
    assert!(running.got.calls().is_empty());
    // Well-formed requests pass, even if they arrive together or in pieces.
    let good = format!("{}2;x\r\n{{}}\r\n0\r\n\r\n", self::post("transfer-encoding: chunked"));
    let last = format!("{}{{}}", self::post("connection: close\r\ncontent-length: 2"));
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    for piece in format!("{good}{good}{last}").as_bytes().chunks(7) {
        stream.write_all(piece).await.unwrap();
    }
    assert_eq!(rest(&mut stream).await.matches("HTTP/1.1 200 ").count(), 3);
}

#[tokio::test]
async fn long_addresses_are_refused() {
    let running = Running::with(Options { max_uri_bytes: 300, ..Options::default() }).await;
    let path = |length: usize| format!("/v1/projects/p/events?{}", "a".repeat(length - 22));
    let at_limit = running.get(&path(300)).await;
    assert_ne!(at_limit.status, 414);
    running.get(&path(301)).await.is_refused(414, "URI_TOO_LONG", "");
    running.send_http2(common::request("GET", &path(301), None)).await.is_refused(
        414,
        "URI_TOO_LONG",
        "",
    );
}

fn post(framing: &str) -> String {
    let authorization = format!("authorization: {BEARER}\r\n");
    format!(
        "POST /v1/projects/p/events HTTP/1.1\r\nhost: t\r\n{authorization}content-type: \
            application/json\r\n{framing}\r\n\r\n"
    )
}

#[tokio::test]
async fn slow_bodies_are_cut_and_steady_ones_are_not() {
    let options = Options {
        body_grace: Duration::from_millis(100),
        min_body_rate: 100,
        ..Options::default()
    };
    let running = Running::with(options).await;
    let began = Instant::now();
    for framing in ["content-length: 10000", "transfer-encoding: chunked"] {
        let slow = exchange(&running, post(framing).as_bytes()).await;
        assert!(
            slow.starts_with("HTTP/1.1 408 ")
                && slow.contains("\"TOO_SLOW\"")
                && slow.contains("connection: close"),
            "{slow}"
        );
    }
    assert!(began.elapsed() < LONG / 2, "it was the pace that cut them");
    // Takes longer than the grace period, but sends ten bytes within each tenth of a second.
    let body = format!(r#"{{"event_type":"{}"}}"#, "a".repeat(100));
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let head = post(&format!("connection: close\r\ncontent-length: {}", body.len()));
    stream.write_all(format!("{head}{}", &body[..50]).as_bytes()).await.unwrap();
    for piece in body.as_bytes()[50..].chunks(10) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream.write_all(piece).await.unwrap();
    }
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn slow_bodies_of_grpc_are_cut() {
    let running =
        Running::with(Options { body_grace: Duration::from_millis(100), ..Options::default() })
            .await;
    let mut grpc = tonic::client::Grpc::new(common::keyed(running.address).await);
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<PublishEventRequest, PublishEventResponse>::default();
    let path = "/outrider.ingest.v1.IngestService/PublishEvent".parse().unwrap();
    // A request whose message never arrives.
    let never = tonic::Request::new(futures::stream::pending());
    let status = timeout(LONG, grpc.client_streaming(never, path, codec))
        .await
        .expect("it is cut")
        .unwrap_err();
    assert_eq!(outrider_rpc::from_status(&status).reason, Reason::TooSlow, "{status:?}");
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA_END: (u8, u8) = (0, 1);
const HEADERS_END: (u8, u8) = (1, 4 | 1);
const HEADERS_OPEN: (u8, u8) = (1, 1);
const RESET: (u8, u8) = (3, 0);
const SETTINGS: (u8, u8) = (4, 0);
const SETTINGS_ACK: (u8, u8) = (4, 1);
const PING: (u8, u8) = (6, 0);
const GO_AWAY: u8 = 7;
const CONTINUATION: (u8, u8) = (9, 0);

fn frame((kind, flags): (u8, u8), stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The headers of `POST path`, in HPACK without Huffman coding and without the table.
fn headers(path: &str) -> Vec<u8> {
    let literal = |index: &[u8], text: &str| {
        [index, &[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
    };
    // The number of "authorization", 23, takes two bytes.
    [vec![0x83, 0x86], literal(&[4], path), literal(&[1], "t"), literal(&[0x0f, 8], BEARER)]
        .concat()
}

/// An HTTP/2 client that writes frames by hand.
async fn by_hand(running: &Running) -> TcpStream {
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream
        .write_all(&[PREFACE, &frame(SETTINGS, 0, &[]), &frame(SETTINGS_ACK, 0, &[])].concat())
        .await
        .unwrap();
    stream
}

/// Writes until the gateway no longer reads. Returns how many writes it took.
async fn flood(
    stream: &mut TcpStream,
    most: usize,
    mut next: impl FnMut(usize) -> Vec<u8>,
) -> Option<usize> {
    let flooding = async {
        for number in 0..most {
            if stream.write_all(&next(number)).await.is_err() {
                return Some(number);
            }
        }
        None
    };
    timeout(LONG, flooding).await.expect("a flood is read or refused")
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_end_the_connection() {
    let running = Running::start().await;
    let mut stream = by_hand(&running).await;
    let block = headers("/v1/projects/p/events");
    let ended = flood(&mut stream, 100_000, |number| {
        let id = u32::try_from(number).unwrap() * 2 + 1;
        [frame(HEADERS_END, id, &block), frame(RESET, id, &8_u32.to_be_bytes())].concat()
    })
    .await;
    assert!(ended.is_some(), "100,000 resets were taken");
    others_are_served(&running).await;
}

#[tokio::test]
async fn requests_that_are_given_up_one_after_the_other_end_the_connection() {
    let running = Running::with(Options { max_abandoned_requests: 10, ..Options::default() }).await;
    let mut stream = by_hand(&running).await;
    let block = headers("/v1/projects/hangs/events");
    let one_by_one = async {
        for number in 0..1_000_u32 {
            let id = number * 2 + 1;
            if stream.write_all(&frame(HEADERS_END, id, &block)).await.is_err() {
                return number;
            }
            // The request is given up only when the role has it, so that none of the library's own
            // limits counts it.
            let before = Instant::now();
            while running.got.calls().len() <= number as usize {
                if before.elapsed() > Duration::from_secs(2) {
                    return number;
                }
                tokio::task::yield_now().await;
            }
            if stream.write_all(&frame(RESET, id, &8_u32.to_be_bytes())).await.is_err() {
                return number;
            }
        }
        1_000
    };
    let taken = timeout(LONG, one_by_one).await.expect("the connection ends");
    assert!((10..=13).contains(&taken), "{taken} requests were given up");
    rest(&mut stream).await;
    others_are_served(&running).await;
}

#[tokio::test]
async fn requests_at_once_are_bounded_by_connection() {
    let running = Running::with(Options { max_concurrent_streams: 3, ..Options::default() }).await;
    let mut stream = by_hand(&running).await;
    let block = headers("/v1/projects/hangs/events");
    for id in [1, 3, 5, 7, 9] {
        stream.write_all(&frame(HEADERS_END, id, &block)).await.unwrap();
    }
    let refused = async {
        let mut refused = Vec::new();
        while refused.len() < 2 {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            stream.read_exact(&mut vec![0; length]).await.unwrap();
            if head[3] == 3 {
                refused.push(head[8]);
            }
        }
        refused
    };
    assert_eq!(timeout(LONG, refused).await.expect("what is too much is refused"), [7, 9]);
    common::until(|| running.got.calls().len() == 3).await;
    others_are_served(&running).await;
}

#[tokio::test]
async fn headers_without_end_end_the_connection() {
    let running = Running::start().await;
    let mut stream = by_hand(&running).await;
    let mut first = frame(HEADERS_OPEN, 1, &headers("/x"));
    first[4] = 1; // Its stream ends, its headers do not.
    stream.write_all(&first).await.unwrap();
    // Each has a field that never becomes part of a complete request: x: aaa…
    let field = [&[0x00, 1, b'x', 100], [b'a'; 100].as_slice()].concat();
    assert!(flood(&mut stream, 1_000_000, |_| frame(CONTINUATION, 1, &field)).await.is_some());
    others_are_served(&running).await;
    assert!(running.got.calls().len() == 1, "only the others' request came through");
}

#[tokio::test]
async fn headers_that_are_too_large_are_refused_in_both_versions() {
    let running = Running::start().await;
    let large = || common::request("GET", "/v1/projects/p/endpoints", None);
    let mut two = large();
    for number in 0..40 {
        let name: http::HeaderName = format!("x-{number}").parse().unwrap();
        two.headers_mut().insert(name, "a".repeat(500).parse().unwrap());
    }
    let one = two.headers().clone();
    running.send_http2(two).await.is_refused(431, "HEADERS_TOO_LARGE", "");
    let mut request = large();
    *request.headers_mut() = one;
    running.send(request).await.is_refused(431, "HEADERS_TOO_LARGE", "");
    others_are_served(&running).await;
}

#[tokio::test]
async fn floods_of_pings_and_settings_affect_only_their_sender() {
    let running = Running::start().await;
    for control in [frame(PING, 0, &[1; 8]), frame(SETTINGS, 0, &[0, 4, 0, 0, 0xff, 0xff])] {
        let mut stream = by_hand(&running).await;
        let many = control.repeat(1_000);
        // The client reads nothing, so answers pile up and then it cannot write.
        let wrote =
            timeout(Duration::from_secs(2), flood(&mut stream, 1_000, |_| many.clone())).await;
        others_are_served(&running).await;
        drop((wrote, stream));
    }
    // A client that reads gets its answers.
    let mut stream = by_hand(&running).await;
    stream.write_all(&frame(PING, 0, &[7; 8])).await.unwrap();
    let pong = frame((6, 1), 0, &[7; 8]);
    let mut came = Vec::new();
    let answered = async {
        while !came.windows(pong.len()).any(|window| window == pong) {
            assert!(stream.read_buf(&mut came).await.unwrap() > 0, "the connection is closed");
        }
    };
    timeout(LONG, answered).await.expect("a ping is answered");
}

#[tokio::test]
async fn a_connection_that_only_pings_is_asked_to_leave() {
    let times = (Duration::from_millis(300), Duration::from_millis(300));
    let running = Running::with(Options {
        idle_timeout: times.0,
        keep_alive_timeout: times.1,
        ..Options::default()
    })
    .await;
    let mut stream = by_hand(&running).await;
    let mut came = Vec::new();
    let pinging = async {
        loop {
            let mut part = [0; 4096];
            tokio::select! {
                read = stream.read(&mut part) => match read {
                    Ok(length @ 1..) => came.extend_from_slice(&part[..length]),
                    _ => return,
                },
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
            if stream.write_all(&frame(PING, 0, &[1; 8])).await.is_err() {
                return;
            }
        }
    };
    timeout(LONG, pinging).await.expect("the connection is closed");
    assert!(
        came.windows(4).any(|window| window[..2] == [0, 0] && window[3] == GO_AWAY),
        "it was told so before"
    );
}

#[tokio::test]
async fn a_stream_that_is_open_keeps_its_connection() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let times = (Duration::from_millis(100), Duration::from_millis(30));
    let mut running = Running::with(Options {
        idle_timeout: times.0,
        keep_alive_interval: times.1,
        ..Options::default()
    })
    .await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", running.address))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut health = HealthClient::new(channel);
    let request = HealthCheckRequest { service: String::new() };
    let mut states = health.watch(request).await.unwrap().into_inner();
    states.message().await.unwrap().expect("the first state");
    // Nothing is sent for several times the limit.
    assert!(
        timeout(Duration::from_millis(600), states.message()).await.is_err(),
        "the stream ended"
    );
    running.shut_down();
    assert!(
        timeout(LONG, states.message())
            .await
            .expect("a state or the end")
            .is_ok_and(|state| state.is_some())
    );
}

#[tokio::test]
async fn frames_that_break_the_rules_end_the_connection() {
    let running = Running::start().await;
    for bad in [
        frame(DATA_END, 0, b"x"),
        frame(HEADERS_END, 2, &headers("/x")),
        frame(RESET, 1, &[0; 4]),
        frame(CONTINUATION, 1, b""),
        frame(SETTINGS, 0, &[0; 5]),
        frame(HEADERS_END, 1, &[0xff; 20]),
    ] {
        let mut stream = by_hand(&running).await;
        stream.write_all(&bad).await.unwrap();
        rest(&mut stream).await;
    }
    others_are_served(&running).await;
}
