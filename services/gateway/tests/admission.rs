//! The key comes first: for a caller without a valid key, nothing of the body is read, and nothing
//! else is checked.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use std::time::Duration;

use common::{BEARER, LONG, Running, bearer, request};
use outrider_gateway::Options;
use outrider_proto::DESCRIPTORS;
use outrider_rpc::{from_status, methods};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Headers with keys that are refused, with status and reason.
fn refused() -> [(String, u16, &'static str); 6] {
    let key = |number| format!("authorization: {}\r\n", bearer(number));
    [
        (String::new(), 401, "MISSING_CREDENTIALS"),
        ("authorization: Basic eDp5\r\n".to_owned(), 401, "MISSING_CREDENTIALS"),
        ("authorization: Bearer nonsense\r\n".to_owned(), 401, "INVALID_CREDENTIALS"),
        (key(1), 401, "INVALID_CREDENTIALS"),
        (key(2), 403, "MISSING_SCOPE"),
        (key(3), 503, "UNAVAILABLE"),
    ]
}

/// Returns everything that arrives on a connection until it closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut came = Vec::new();
    timeout(LONG, stream.read_to_end(&mut came)).await.expect("the connection is closed").unwrap();
    String::from_utf8_lossy(&came).into_owned()
}

async fn say(running: &Running, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// A request over HTTP/1.1 for each surface: path, media type, and headers that are wrong too.
const SURFACES: [(&str, &str, &str); 4] = [
    (
        "POST /v1/projects/p/events",
        "application/json",
        "request-timeout: soon\r\ncontent-encoding: gzip\r\n",
    ),
    ("POST /v1/projects/p/events:batch", "application/x-ndjson", "content-encoding: gzip\r\n"),
    ("GET /v1/projects/p/events:tail", "application/json", "accept: image/png\r\n"),
    (
        "POST /outrider.ingest.v1.IngestService/PublishEvent",
        "application/grpc-web+proto",
        "grpc-timeout: soon\r\n",
    ),
];

#[tokio::test]
async fn no_client_is_asked_for_a_body_without_a_valid_key() {
    let running = Running::start().await;
    for (line, media_type, also) in SURFACES {
        for (key, code, reason) in refused() {
            let head = format!(
                "{line} HTTP/1.1\r\nhost: t\r\n{key}{also}content-type: {media_type}\r\n\
                    content-length: 5000000\r\n\
                 expect: 100-continue\r\n\r\n"
            );
            let answer = rest(&mut say(&running, &head).await).await;
            assert!(!answer.contains("HTTP/1.1 100"), "{line} {reason}: {answer}");
            assert!(answer.contains("connection: close"), "{line} {reason}: {answer}");
            if media_type.starts_with("application/grpc-web") {
                assert!(
                    answer.starts_with("HTTP/1.1 200 ") && answer.contains("grpc-status: "),
                    "{line} {reason}: {answer}"
                );
                assert!(!answer.contains("grpc-status: 0"), "{line} {reason}: {answer}");
            } else {
                assert!(
                    answer.starts_with(&format!("HTTP/1.1 {code} ")),
                    "{line} {reason}: {answer}"
                );
                assert!(
                    answer.contains(&format!("\"reason\":\"{reason}\"")),
                    "{line} {reason}: {answer}"
                );
            }
        }
    }
    // An unsupported gRPC media type is refused by the head alone, whatever the key.
    let head = "POST /outrider.ingest.v1.IngestService/PublishEvent HTTP/1.1\r\nhost: t\r\n\
                content-type: application/grpc-web-strange\r\ncontent-length: 5000000\r\nexpect: \
                100-continue\r\n\r\n";
    let answer = rest(&mut say(&running, head).await).await;
    assert!(answer.starts_with("HTTP/1.1 415 "), "{answer}");
    assert!(running.got.calls().is_empty());
}

#[tokio::test]
async fn a_half_sent_body_is_refused_at_once_and_a_whole_one_does_not_hide_the_answer() {
    let running =
        Running::with(Options { linger: Duration::from_millis(200), ..Options::default() }).await;
    for framing in
        ["content-length: 5000000\r\n\r\n{", "transfer-encoding: chunked\r\n\r\n5\r\n{\"ev"]
    {
        let head = format!(
            "POST /v1/projects/p/events HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n\
                {framing}"
        );
        let mut stream = say(&running, &head).await;
        let mut first = [0; 12];
        timeout(LONG, stream.read_exact(&mut first))
            .await
            .expect("it does not wait for the rest")
            .unwrap();
        assert_eq!(&first, b"HTTP/1.1 401");
        rest(&mut stream).await;
    }
    // A client that writes everything before it reads.
    let body = "x".repeat(5_000_000);
    let head = format!(
        "POST /v1/projects/p/events HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let answer = rest(&mut say(&running, &format!("{head}{body}")).await).await;
    assert!(
        answer.starts_with("HTTP/1.1 401 ") && answer.contains("MISSING_CREDENTIALS"),
        "{answer}"
    );
    // Without a body, the connection stays open.
    let get = "GET /v1/projects/p/endpoints HTTP/1.1\r\nhost: t\r\n";
    let twice = format!("{get}\r\n{get}authorization: {BEARER}\r\nconnection: close\r\n\r\n");
    let answers = rest(&mut say(&running, &twice).await).await;
    assert!(answers.starts_with("HTTP/1.1 401 ") && answers.contains("HTTP/1.1 200 "), "{answers}");
}

#[tokio::test]
async fn every_method_wants_a_key_first_by_grpc_and_by_every_route() {
    let running = Running::start().await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", running.address))
        .unwrap()
        .connect_lazy();
    for service in methods::public_services() {
        for method in service.methods() {
            let mut grpc = tonic::client::Grpc::new(channel.clone());
            grpc.ready().await.unwrap();
            let path: http::uri::PathAndQuery = methods::path(&method).parse().unwrap();
            // The message never arrives, so a server that waited for it would not check the key
            // first.
            let never = tonic::Request::new(futures::stream::pending::<()>());
            let codec = tonic_prost::ProstCodec::<(), ()>::default();
            let call = timeout(LONG, grpc.streaming(never, path.clone(), codec))
                .await
                .unwrap_or_else(|_| panic!("{path} waits"));
            let status = match call {
                Err(status) => status,
                Ok(mut answer) => {
                    timeout(LONG, answer.get_mut().message()).await.unwrap().unwrap_err()
                }
            };
            assert_eq!(from_status(&status).reason.as_str(), "MISSING_CREDENTIALS", "{path}");
        }
    }
    let gateway = outrider_gateway::Gateway::new(
        Options::default(),
        outrider_gateway::Given::default(),
        common::backends(&Default::default()),
        std::sync::Arc::new(common::Keys),
    );
    for (method, template) in gateway.unwrap().routes() {
        let path = template.replace(['{', '}'], "");
        let mut asked = request(method, &path, None);
        asked.headers_mut().remove("authorization");
        running.send(asked).await.is_refused(401, "MISSING_CREDENTIALS", "");
    }
    assert!(running.got.calls().is_empty() && DESCRIPTORS.services().count() > 3);
}

#[tokio::test]
async fn services_that_need_no_key_answer_without_one() {
    let running = Running::start().await;
    for path in ["/version", "/openapi.json"] {
        let mut asked = request("GET", path, None);
        asked.headers_mut().remove("authorization");
        assert_eq!(running.send(asked).await.status, 200, "{path}");
    }
    let mut nowhere = request("POST", "/v1/nowhere", Some("{}"));
    nowhere.headers_mut().remove("authorization");
    running.send(nowhere).await.is_refused(404, "UNKNOWN_METHOD", "");
}
