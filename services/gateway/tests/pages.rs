//! Pages that the gateway answers itself, and how answers are encoded, over a real socket.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use std::io::Read;

use bytes::Bytes;
use common::{Running, request};
use http::Request;
use http_body_util::Full;
use outrider_gateway::Given;

/// A request without an API key.
fn plain(method: &str, path: &str, headers: &[(&'static str, &str)]) -> Request<Full<Bytes>> {
    let mut request = request(method, path, None);
    request.headers_mut().remove("authorization");
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    request
}

fn unzipped(bytes: &[u8]) -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(bytes).read_to_string(&mut text).unwrap();
    text
}

#[tokio::test]
async fn the_openapi_document_is_served_without_a_key_and_only_when_it_is_new() {
    let running = Running::start().await;
    let answer = running.send(plain("GET", "/openapi.json", &[])).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["content-type"]),
        (200, &"application/json".parse().unwrap())
    );
    assert_eq!(answer.headers["cache-control"], "no-cache");
    let json = answer.json();
    assert_eq!(json["openapi"], "3.1.0");
    assert!(json["paths"]["/v1/projects/{project_id}/events"]["post"].is_object());

    let etag = answer.headers["etag"].to_str().unwrap();
    for known in [etag, etag.trim_start_matches("W/"), &format!("\"x\", {etag}"), "*"] {
        let answer = running.send(plain("GET", "/openapi.json", &[("if-none-match", known)])).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (304, ""), "{known}");
        assert_eq!(answer.headers["etag"], etag);
    }
    assert_eq!(
        running.send(plain("GET", "/openapi.json", &[("if-none-match", "\"x\"")])).await.status,
        200
    );

    let head = running.send(plain("HEAD", "/openapi.json", &[])).await;
    assert_eq!(
        (head.text.as_str(), head.headers["content-length"].to_str().unwrap()),
        ("", &*answer.text.len().to_string())
    );
    let post = running.send(plain("POST", "/openapi.json", &[])).await;
    post.is_refused(405, "METHOD_NOT_ALLOWED", "");
    assert_eq!(post.headers["allow"], "GET, HEAD");
    assert!(running.got.calls().is_empty());
}

#[tokio::test]
async fn the_version_is_served() {
    let running =
        Running::given(Given { version: "1.2.3", commit: Some("abc"), ..Given::default() }).await;
    let answer = running.send(plain("GET", "/version", &[])).await;
    assert_eq!(answer.text, r#"{"version":"1.2.3","commit":"abc"}"#);
    let running = Running::given(Given { commit: None, ..Given::default() }).await;
    assert_eq!(
        running.send(plain("GET", "/version", &[])).await.json().as_object().unwrap().len(),
        1
    );
}

#[tokio::test]
async fn large_answers_are_compressed_for_clients_that_accept_gzip() {
    let running = Running::start().await;
    let plain_text = running.send(plain("GET", "/openapi.json", &[])).await;
    assert_eq!(plain_text.headers["vary"], "accept-encoding");
    let zipped =
        running.send(plain("GET", "/openapi.json", &[("accept-encoding", "br, gzip")])).await;
    assert_eq!(zipped.headers["content-encoding"], "gzip");
    assert!(zipped.bytes.len() * 4 < plain_text.bytes.len());
    assert_eq!(unzipped(&zipped.bytes), plain_text.text);

    // Answers of a role, small and large. The larger one is compressed off the threads of the
    // requests.
    for (size, compressed) in [(10, false), (2_000, true), (400_000, true)] {
        let path = "/v1/projects/p/endpoints";
        let body = format!(r#"{{"description":"{}"}}"#, "x".repeat(size));
        let mut create = request("POST", path, Some(&body));
        create.headers_mut().insert("accept-encoding", "gzip".parse().unwrap());
        let answer = running.send(create).await;
        assert_eq!(
            (answer.status.as_u16(), answer.headers.contains_key("content-encoding")),
            (200, compressed),
            "{size}"
        );
        let text = if compressed { unzipped(&answer.bytes) } else { answer.text };
        assert_eq!(
            text.matches('x').count(),
            running.post(path, &body).await.text.matches('x').count(),
            "{size}"
        );
    }
}

#[tokio::test]
async fn compressed_requests_are_refused() {
    let running = Running::start().await;
    let mut publish = request("POST", "/v1/projects/p/events", Some("{}"));
    publish.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
    running.send(publish).await.is_refused(400, "MALFORMED_REQUEST", "content-encoding");
    assert!(running.got.calls().is_empty());
    let mut publish = request("POST", "/v1/projects/p/events", Some("{}"));
    publish.headers_mut().insert("content-encoding", "identity".parse().unwrap());
    assert_eq!(running.send(publish).await.status, 200);
}
