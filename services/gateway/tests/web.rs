//! gRPC-web and CORS, as a browser sends them, over a real socket.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use common::{Answer, BEARER, LONG, Running, request};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use outrider_gateway::{Gateway, Options};
use outrider_proto::ingest;
use prost::Message;
use tokio::{net::TcpStream, time::timeout};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

const PUBLISH: &str = "/outrider.ingest.v1.IngestService/PublishEvent";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const BINARY: &str = "application/grpc-web+proto";
const TEXT: &str = "application/grpc-web-text";

fn framed(message: &impl Message) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.encoded_len().try_into().unwrap());
    message.encode(&mut frame).unwrap();
    frame.freeze()
}

fn post(path: &str, media_type: &str, body: Bytes) -> Request<Full<Bytes>> {
    let body = if media_type.contains("text") { STANDARD.encode(body).into() } else { body };
    let builder = Request::builder()
        .method("POST")
        .uri(path)
        .header("host", "test")
        .header("authorization", BEARER);
    let builder = builder
        .header("content-type", media_type)
        .header("accept", media_type)
        .header("x-grpc-web", "1");
    builder.header("origin", "https://app.example").body(Full::new(body)).unwrap()
}

fn publish(project: &str) -> ingest::PublishEventRequest {
    let event =
        ingest::NewEvent { event_type: "a".into(), payload: "{ }".into(), ..Default::default() };
    ingest::PublishEventRequest { project_id: project.into(), event: Some(event) }
}

/// Returns the frames with their flag and their content.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [flag, a, b, c, d, rest @ ..] = bytes {
        let (content, rest) = rest.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        frames.push((*flag, content.to_vec()));
        bytes = rest;
    }
    frames
}

/// Frames may be encoded one by one, each ending with padding.
fn decoded(text: &[u8]) -> Vec<u8> {
    text.chunks(4).flat_map(|chunk| STANDARD.decode(chunk).unwrap()).collect()
}

#[track_caller]
fn published(answer: &Answer, bytes: &[u8]) {
    assert_eq!(answer.status, 200, "{answer:?}");
    let frames = frames(bytes);
    assert_eq!(frames.len(), 2, "{answer:?}");
    assert_eq!(
        ingest::PublishEventResponse::decode(frames[0].1.as_slice()).unwrap().event_id,
        "evt_1"
    );
    let trailers = String::from_utf8(frames[1].1.clone()).unwrap();
    assert!(frames[1].0 == 0x80 && trailers.contains("grpc-status:0"), "{trailers}");
}

#[tokio::test]
async fn unary_calls_pass_in_both_encodings_over_both_versions_of_http() {
    let running = Running::start().await;
    let answer = running.send(post(PUBLISH, BINARY, framed(&publish("p")))).await;
    published(&answer, &answer.bytes);
    assert_eq!(answer.headers["content-type"], BINARY);
    assert!(answer.headers.contains_key("x-request-id"));
    assert_eq!(running.got.last::<ingest::PublishEventRequest>(), publish("p"));
    assert_eq!(running.got.calls().pop().unwrap().authorization.as_deref(), Some(BEARER));
    let answer = running.send_http2(post(PUBLISH, BINARY, framed(&publish("p")))).await;
    published(&answer, &answer.bytes);
    let answer = running.send(post(PUBLISH, TEXT, framed(&publish("p")))).await;
    published(&answer, &decoded(&answer.bytes));
    assert!(answer.headers["content-type"].to_str().unwrap().starts_with(TEXT));
}

#[tokio::test]
async fn errors_have_the_form_of_grpc() {
    let running = Running::start().await;
    let status = async |request: Request<Full<Bytes>>| {
        let answer = running.send(request).await;
        let trailers = frames(&answer.bytes)
            .pop()
            .map(|(_, content)| String::from_utf8(content).unwrap())
            .unwrap_or_default();
        let in_header =
            answer.headers.get("grpc-status").map(|status| status.to_str().unwrap().to_owned());
        let line =
            trailers.lines().find_map(|line| line.strip_prefix("grpc-status:").map(str::to_owned));
        assert!(
            answer.headers["content-type"].to_str().unwrap().starts_with("application/grpc-web"),
            "{answer:?}"
        );
        in_header.or(line).unwrap_or_else(|| panic!("{answer:?}"))
    };
    let body = || framed(&publish("p"));
    assert_eq!(status(post(PUBLISH, BINARY, framed(&publish("bad")))).await, "3");
    assert_eq!(status(post(PUBLISH, BINARY, framed(&publish("panics")))).await, "13");
    assert_eq!(
        status(post("/outrider.internal.v1.IntakeService/AcceptEvents", BINARY, body())).await,
        "12"
    );
    assert_eq!(status(post(PUBLISH, "application/grpc-web+json", body())).await, "12");
    let mut get = post(PUBLISH, BINARY, Bytes::new());
    *get.method_mut() = http::Method::GET;
    assert_eq!(status(get).await, "12");
    let mut late = post(PUBLISH, BINARY, framed(&publish("hangs")));
    late.headers_mut().insert("grpc-timeout", "50m".parse().unwrap());
    assert_eq!(status(late).await, "4");
}

#[tokio::test]
async fn the_bound_of_bodies_holds_for_what_is_unwrapped() {
    let running = Running::with(Options { max_request_bytes: 4096, ..Options::default() }).await;
    let event = ingest::NewEvent { payload: vec![0; 5000].into(), ..Default::default() };
    let large = ingest::PublishEventRequest { project_id: "p".into(), event: Some(event) };
    for media_type in [BINARY, TEXT] {
        let answer = running.send(post(PUBLISH, media_type, framed(&large))).await;
        assert_eq!(answer.headers["grpc-status"], "3", "{answer:?}");
    }
    assert!(running.got.calls().is_empty());
}

#[tokio::test]
async fn streams_of_the_server_pass_message_by_message_and_tell_the_shutdown() {
    let mut running = Running::start().await;
    let io = TokioIo::new(TcpStream::connect(running.address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let answer = sender
        .send_request(post(WATCH, BINARY, framed(&HealthCheckRequest::default())))
        .await
        .unwrap();
    let mut body = answer.into_body();
    let first = timeout(LONG, body.frame()).await.unwrap().unwrap().unwrap().into_data().unwrap();
    assert_eq!(HealthCheckResponse::decode(frames(&first)[0].1.as_slice()).unwrap().status, 1);
    running.shut_down();
    let rest = timeout(LONG, body.collect()).await.expect("the stream ends").unwrap().to_bytes();
    let rest = frames(&rest);
    assert_eq!(HealthCheckResponse::decode(rest[0].1.as_slice()).unwrap().status, 2);
    assert_eq!(rest[1].0, 0x80);
    timeout(LONG, running.served).await.expect("no watch holds up the shutdown").unwrap();
}

fn preflight(origin: &str) -> Request<Full<Bytes>> {
    let builder = Request::builder()
        .method("OPTIONS")
        .uri(PUBLISH)
        .header("host", "test")
        .header("origin", origin);
    let builder = builder.header("access-control-request-method", "POST");
    builder
        .header("access-control-request-headers", "authorization,x-grpc-web")
        .body(Full::default())
        .unwrap()
}

#[tokio::test]
async fn pages_of_other_origins_are_let_in_by_configuration() {
    let origins = vec!["https://app.example".to_owned(), "http://localhost:3000".to_owned()];
    let running = Running::with(Options { cors_origins: origins, ..Options::default() }).await;
    let asked = running.send(preflight("https://app.example")).await;
    assert_eq!(
        (asked.status.as_u16(), &asked.headers["access-control-allow-origin"]),
        (200, &"https://app.example".parse().unwrap())
    );
    assert_eq!(asked.headers["access-control-allow-headers"], "authorization,x-grpc-web");
    assert!(!asked.headers.contains_key("access-control-allow-credentials"));
    let answer = running.send(post(PUBLISH, BINARY, framed(&publish("p")))).await;
    assert_eq!(answer.headers["access-control-allow-origin"], "https://app.example");
    let exposed = answer.headers["access-control-expose-headers"].to_str().unwrap();
    for name in
        ["grpc-status", "grpc-message", "grpc-status-details-bin", "x-request-id", "retry-after"]
    {
        assert!(exposed.contains(name), "{exposed}");
    }
    // REST answers and refusals have the header too. Other origins do not get it.
    let mut rest = request("GET", "/nowhere", None);
    rest.headers_mut().insert("origin", "http://localhost:3000".parse().unwrap());
    let refused = running.send(rest).await;
    assert_eq!(refused.headers["access-control-allow-origin"], "http://localhost:3000");
    refused.is_refused(404, "UNKNOWN_METHOD", "");
    assert!(
        !running
            .send(preflight("https://evil.example"))
            .await
            .headers
            .contains_key("access-control-allow-origin")
    );
}

#[tokio::test]
async fn any_origin_and_none() {
    let running =
        Running::with(Options { cors_origins: vec!["*".to_owned()], ..Options::default() }).await;
    let asked = running.send(preflight("https://evil.example")).await;
    assert_eq!(asked.headers["access-control-allow-origin"], "*");
    assert!(!asked.headers.contains_key("access-control-allow-credentials"));
    let running = Running::start().await;
    let asked = running.send(preflight("https://app.example")).await;
    assert!(!asked.headers.contains_key("access-control-allow-origin"), "{asked:?}");
    let wrong = Options { cors_origins: vec!["app.example".to_owned()], ..Options::default() };
    let error = Gateway::new(
        wrong,
        outrider_gateway::Given::default(),
        common::backends(&Default::default()),
        std::sync::Arc::new(common::Keys),
    )
    .err()
    .unwrap();
    assert!(error.to_string().contains("cors_origins: \"app.example\""), "{error}");
}

#[tokio::test]
async fn a_connection_of_a_preflight_lives_on() {
    let options = Options {
        cors_origins: vec!["*".to_owned()],
        header_read_timeout: Duration::from_millis(100),
        idle_timeout: LONG,
        ..Options::default()
    };
    let running = Running::with(options).await;
    let io = TokioIo::new(TcpStream::connect(running.address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let asked = sender.send_request(preflight("https://app.example")).await.unwrap();
    asked.into_body().collect().await.unwrap();
    tokio::time::sleep(Duration::from_millis(250)).await;
    let answer = sender.send_request(post(PUBLISH, BINARY, framed(&publish("p")))).await.unwrap();
    assert_eq!(answer.status(), 200);
}
