//! Limits on bytes, time and connections, over a real socket.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use std::time::Duration;

use common::{BEARER, LONG, Running, bearer, request};
use outrider_gateway::{Given, Options};
use outrider_proto::ingest::{self, ingest_service_client::IngestServiceClient};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const SMALL: usize = 64 * 1024;

async fn small() -> Running {
    Running::with(Options { max_request_bytes: SMALL, ..Options::default() }).await
}

/// Sends bytes and reads until the gateway closes the connection.
async fn exchange(running: &Running, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    timeout(LONG, stream.read_to_end(&mut answer))
        .await
        .expect("the connection is closed")
        .unwrap();
    String::from_utf8(answer).unwrap()
}

fn head(framing: &str) -> String {
    let authorization = format!("authorization: {BEARER}\r\n");
    format!(
        "POST /v1/projects/p/events HTTP/1.1\r\nhost: t\r\n{authorization}content-type: \
            application/json\r\n{framing}\r\n\r\n"
    )
}

#[track_caller]
fn assert_too_large(answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("connection: close") && answer.contains("\"TOO_LARGE\""), "{answer}");
}

#[tokio::test]
async fn an_announced_body_that_is_too_large_is_refused_and_the_connection_closed() {
    let running = small().await;
    let body = "x".repeat(SMALL + 1);
    assert_too_large(
        &exchange(
            &running,
            format!("{}{body}", head(&format!("content-length: {}", body.len()))).as_bytes(),
        )
        .await,
    );
    // A client that waits for `100 Continue` is answered at once.
    assert_too_large(
        &exchange(&running, head("content-length: 99999999\r\nexpect: 100-continue").as_bytes())
            .await,
    );
    assert!(running.got.calls().is_empty());
}

#[tokio::test]
async fn a_chunked_body_is_counted_while_it_is_read() {
    let running = small().await;
    let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
    let body = format!("{}{}0\r\n\r\n", head("transfer-encoding: chunked"), chunk.repeat(5));
    assert_too_large(&exchange(&running, body.as_bytes()).await);
}

#[tokio::test]
async fn the_largest_body_is_taken() {
    let running = small().await;
    let start = r#"{"event_type":"a","data":""#;
    let body = format!("{start}{}\"}}", "x".repeat(SMALL - start.len() - 2));
    assert_eq!(running.post("/v1/projects/p/events", &body).await.status, 200);
    assert_eq!(running.post("/v1/projects/p/events", &format!("{body} ")).await.status, 413);
    let http2 = running
        .send_http2(request("POST", "/v1/projects/p/events", Some(&format!("{body} "))))
        .await;
    http2.is_refused(413, "TOO_LARGE", "");
}

#[tokio::test]
async fn grpc_bodies_have_the_same_bound() {
    let running = small().await;
    let mut client = IngestServiceClient::new(common::keyed(running.address).await);
    let event = ingest::NewEvent { payload: vec![0; SMALL].into(), ..Default::default() };
    let status = client
        .publish_event(ingest::PublishEventRequest { project_id: "p".into(), event: Some(event) })
        .await
        .unwrap_err();
    assert_eq!(
        outrider_rpc::from_status(&status).reason,
        outrider_model::Reason::TooLarge,
        "{status:?}"
    );
    assert!(running.got.calls().is_empty());
}

#[tokio::test]
async fn bodies_of_all_requests_share_a_room() {
    let running =
        Running::with(Options { max_buffered_bytes: 4 * 1024, ..Options::default() }).await;
    let body = format!(r#"{{"data":"{}"}}"#, "x".repeat(8 * 1024));
    let refused = running.post("/v1/projects/p/events", &body).await;
    refused.is_refused(429, "OVERLOADED", "");
    // Refused bodies hold no room.
    for _ in 0..20 {
        assert_eq!(running.post("/v1/projects/p/events", r#"{"data":"x"}"#).await.status, 200);
    }
}

#[tokio::test]
async fn a_slow_body_and_a_slow_role_are_cut() {
    let running = Running::with(Options {
        request_timeout: Duration::from_millis(100),
        ..Options::default()
    })
    .await;
    let slow = exchange(&running, head("content-length: 10").as_bytes()).await;
    assert!(slow.starts_with("HTTP/1.1 408 ") && slow.contains("\"TOO_SLOW\""), "{slow}");
    running.post("/v1/projects/hangs/events", "{}").await.is_refused(504, "DEADLINE_EXCEEDED", "");

    // A connection is not idle while its request is in flight.
    let idle = Options {
        request_timeout: Duration::from_millis(500),
        idle_timeout: Duration::from_millis(50),
        ..Options::default()
    };
    let running = Running::with(idle).await;
    running.post("/v1/projects/hangs/events", "{}").await.is_refused(504, "DEADLINE_EXCEEDED", "");
}

#[tokio::test]
async fn slow_heads_and_silent_connections_are_cut() {
    let options = Options {
        header_read_timeout: Duration::from_millis(100),
        idle_timeout: Duration::from_secs(2),
        ..Options::default()
    };
    let running = Running::with(options).await;
    for begin in ["", "P", "PRI * HT", "GET /v1/projects HTTP/1.1\r\nhost:"] {
        assert_eq!(exchange(&running, begin.as_bytes()).await, "", "{begin}");
    }
    // A connection that waits for its next request may live longer than a head may take.
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let get = format!(
        "GET /v1/projects/p/endpoints HTTP/1.1\r\nhost: t\r\nauthorization: {BEARER}\r\n\r\n"
    );
    let get = get.as_bytes();
    stream.write_all(get).await.unwrap();
    let mut first = vec![0; 4096];
    assert!(stream.read(&mut first).await.unwrap() > 0);
    tokio::time::sleep(Duration::from_millis(250)).await;
    stream.write_all(get).await.unwrap();
    let mut rest = Vec::new();
    timeout(LONG, stream.read_to_end(&mut rest))
        .await
        .expect("an idle connection is closed")
        .unwrap();
    assert!(String::from_utf8(rest).unwrap().starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn heads_are_bounded() {
    let running = Running::start().await;
    let long = exchange(
        &running,
        format!("GET /{} HTTP/1.1\r\nhost: t\r\n\r\n", "a".repeat(20_000)).as_bytes(),
    )
    .await;
    assert!(long.starts_with("HTTP/1.1 431 ") && long.contains("is over 16384 bytes"), "{long}");
    let many =
        exchange(&running, format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101)).as_bytes())
            .await;
    assert!(
        many.starts_with("HTTP/1.1 431 ") && many.contains("more than 100 header fields"),
        "{many}"
    );
    assert!(many.contains("HEADERS_TOO_LARGE") && many.contains("x-request-id: "), "{many}");
}

/// Sends a request with or without a valid key. Returns the connection and the status of the
/// answer, or `None` if the connection is closed.
async fn get(running: &Running, key: &str) -> Option<(TcpStream, String)> {
    let mut stream = TcpStream::connect(running.address).await.ok()?;
    let text = format!("GET /v1/projects/p/endpoints HTTP/1.1\r\nhost: t\r\n{key}\r\n");
    stream.write_all(text.as_bytes()).await.ok()?;
    let mut answer = [0; 512];
    let length = timeout(LONG, stream.read(&mut answer))
        .await
        .expect("an answer or the end")
        .ok()
        .filter(|length| *length > 0)?;
    Some((stream, String::from_utf8_lossy(&answer[..length]).get(9..12)?.to_owned()))
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    timeout(LONG, async { while !matches!(stream.read(&mut [0; 512]).await, Ok(0) | Err(_)) {} })
        .await
        .is_ok()
}

#[tokio::test]
async fn connections_of_known_callers_keep_their_places_and_others_are_closed() {
    let known = |key| format!("authorization: {}\r\n", bearer(key));
    let running = Running::with(Options {
        max_connections: 4,
        reserved_connections: 0,
        ..Options::default()
    })
    .await;
    let mut callers = Vec::new();
    for key in 4..7 {
        let (stream, status) = get(&running, &known(key)).await.unwrap();
        assert_eq!(status, "200");
        callers.push((key, stream));
    }
    // A silent connection keeps its slot until another connection arrives.
    let mut silent = TcpStream::connect(running.address).await.unwrap();
    let (mut stranger, status) = get(&running, "").await.unwrap();
    assert_eq!(status, "401");
    assert!(is_closed(&mut silent).await);
    // So does a connection of a caller that already has its share.
    let (mut beyond, status) = get(&running, &known(4)).await.unwrap();
    assert_eq!(status, "200");
    assert!(is_closed(&mut stranger).await);
    assert_eq!(get(&running, "").await.unwrap().1, "401");
    assert!(is_closed(&mut beyond).await);
    for (key, stream) in &mut callers {
        let again =
            format!("GET /v1/projects/p/endpoints HTTP/1.1\r\nhost: t\r\n{}\r\n", known(*key));
        stream.write_all(again.as_bytes()).await.unwrap();
        assert!(
            timeout(LONG, stream.read(&mut [0; 512])).await.unwrap().unwrap() > 0,
            "it is still there"
        );
    }
}

#[tokio::test]
async fn a_flood_of_silent_connections_leaves_the_reserve_to_known_callers() {
    let running = Running::with(Options {
        max_connections: 8,
        reserved_connections: 4,
        ..Options::default()
    })
    .await;
    let mut flood = Vec::new();
    for _ in 0..20 {
        flood.push(TcpStream::connect(running.address).await.unwrap());
    }
    let known = format!("authorization: {BEARER}\r\n");
    let mut callers = Vec::new();
    for _ in 0..4 {
        let (stream, status) = get(&running, &known).await.unwrap();
        assert_eq!(status, "200");
        callers.push(stream);
        flood.push(TcpStream::connect(running.address).await.unwrap());
    }
    for caller in &mut callers {
        caller
            .write_all(
                format!("GET /v1/projects/p/endpoints HTTP/1.1\r\nhost: t\r\n{known}\r\n")
                    .as_bytes(),
            )
            .await
            .unwrap();
        assert!(
            timeout(LONG, caller.read(&mut [0; 512])).await.unwrap().unwrap() > 0,
            "it is still there"
        );
    }
    for stream in &mut flood[..12] {
        assert!(is_closed(stream).await);
    }
}

#[tokio::test]
async fn shutdown_lets_requests_end() {
    let mut running = Running::start().await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(head("content-length: 2\r\nexpect: 100-continue").as_bytes()).await.unwrap();
    let mut buffer = [0; 25];
    timeout(LONG, stream.read_exact(&mut buffer)).await.unwrap().unwrap();
    assert!(buffer.starts_with(b"HTTP/1.1 100 "));
    running.shut_down();
    // The listener is closed, so the shutdown has begun.
    timeout(LONG, async { while TcpStream::connect(running.address).await.is_ok() {} })
        .await
        .unwrap();
    stream.write_all(b"{}").await.unwrap();
    let mut answer = String::new();
    timeout(LONG, stream.read_to_string(&mut answer)).await.expect("the connection ends").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    timeout(LONG, running.served).await.expect("the drain ends").unwrap();
}

#[tokio::test]
async fn shutdown_has_a_time_limit() {
    let mut running =
        Running::with(Options { drain: Duration::from_millis(200), ..Options::default() }).await;
    let address = running.address;
    let mut hanging = TcpStream::connect(address).await.unwrap();
    let head = head("content-length: 0").replace("/p/", "/hangs/");
    hanging.write_all(head.as_bytes()).await.unwrap();
    timeout(LONG, async {
        while running.got.calls().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    running.shut_down();
    timeout(LONG, &mut running.served).await.expect("the drain ends").unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_the_callers_to_ask_for_in_parts() {
    let running = Running::given(Given { max_answer_bytes: 100_000, ..Given::default() }).await;
    let answer = running.get("/v1/projects/large/events/evt_1").await;
    assert!(
        answer.text.contains("the answer is over 100000 bytes: ask for a smaller page"),
        "{answer:.300?}"
    );
    answer.is_refused(413, "TOO_LARGE", "");
    assert_eq!(running.get("/v1/projects/p/events/evt_1").await.status, 200);
}
