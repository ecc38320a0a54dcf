//! Deadlines: the check of the key counts toward them, and metrics tell whose deadline passed.
//! Streams without a key are limited.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use std::time::Duration;

use common::{LONG, Running, bearer, request};
use http::Request;
use http_body_util::{BodyExt, Full};
use outrider_gateway::Options;
use outrider_model::Reason;
use outrider_rpc::from_status;
use outrider_telemetry::catalog::gateway::REQUESTS;
use tokio::time::timeout;
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

/// A key whose check is never answered.
const UNTOLD: u8 = 9;

const UNARY: &str = "/outrider.ingest.v1.IngestService/PublishEvent";
const STREAM: &str = "/outrider.ingest.v1.IngestService/StreamEvents";
const TAIL: &str = "/outrider.dispatch.v1.EventService/TailEvents";

/// Returns the status of a call whose body never arrives.
async fn call(running: &Running, path: &str, media_type: &str, time: Option<&str>) -> Status {
    let request = Request::post(path)
        .header("authorization", bearer(UNTOLD))
        .header("content-type", media_type);
    let request =
        time.into_iter().fold(request, |request, time| request.header("grpc-timeout", time));
    let request = request.header("te", "trailers").body(Full::default()).unwrap();
    let answer = running.exchange_http2(request).await;
    let head = Status::from_header_map(answer.headers());
    let body = timeout(LONG, answer.into_body().collect()).await.expect("an answer").unwrap();
    body.trailers().and_then(Status::from_header_map).or(head).unwrap()
}

/// Every request with a key whose check is never answered ends in time.
async fn ends(running: &Running, rest: Option<&str>, grpc: Option<&str>) {
    for (method, path, media_type) in [
        ("POST", "/v1/projects/p/events", "application/json"),
        ("POST", "/v1/projects/p/events:batch", "application/x-ndjson"),
        ("GET", "/v1/projects/p/events:tail", "application/json"),
    ] {
        let mut asked = request(method, path, None);
        asked.headers_mut().insert("authorization", bearer(UNTOLD).parse().unwrap());
        asked.headers_mut().insert("content-type", media_type.parse().unwrap());
        if let Some(time) = rest {
            asked.headers_mut().insert("request-timeout", time.parse().unwrap());
        }
        running.send(asked).await.is_refused(504, "DEADLINE_EXCEEDED", "");
    }
    for (path, media_type) in [
        (UNARY, "application/grpc"),
        (STREAM, "application/grpc"),
        (TAIL, "application/grpc"),
        (UNARY, "application/grpc-web"),
    ] {
        let status = call(running, path, media_type, grpc).await;
        assert_eq!(
            from_status(&status).reason,
            Reason::DeadlineExceeded,
            "{path} {media_type}: {status:?}"
        );
    }
    assert!(running.got.calls().is_empty());
}

#[tokio::test]
async fn a_key_is_checked_within_the_deadline_of_its_request() {
    let short = Duration::from_millis(100);
    ends(
        &Running::with(Options { request_timeout: short, ..Options::default() }).await,
        None,
        None,
    )
    .await;
    let hour = Duration::from_secs(3600);
    let patient = Running::with(Options { request_timeout: hour, ..Options::default() }).await;
    ends(&patient, Some("0.1"), Some("100m")).await;
    // A malformed deadline is reported to known callers. Others are told that they are not known.
    let mut soon = request("GET", "/v1/projects/p/endpoints", None);
    soon.headers_mut().insert("request-timeout", "soon".parse().unwrap());
    patient.send(soon.clone()).await.is_refused(400, "MALFORMED_REQUEST", "request-timeout");
    soon.headers_mut().insert("authorization", bearer(1).parse().unwrap());
    patient.send(soon).await.is_refused(401, "INVALID_CREDENTIALS", "");
}

#[tokio::test]
async fn whose_deadline_passed_is_counted_apart() {
    const ROUTE: &str = "/v1/projects/{project_id}/events";
    let of = |status| REQUESTS.with_label_values(&["rest", "POST", ROUTE, status]).get();
    let hour = Duration::from_secs(3600);
    let running = Running::with(Options { request_timeout: hour, ..Options::default() }).await;
    let before = (of("client-deadline"), of("504"));
    let mut hasty = request("POST", "/v1/projects/hangs/events", Some("{}"));
    hasty.headers_mut().insert("request-timeout", "0.05".parse().unwrap());
    running.send(hasty).await.is_refused(504, "DEADLINE_EXCEEDED", "");
    common::until(|| of("client-deadline") > before.0).await;
    assert_eq!(of("504"), before.1, "it is no fault of the server");
}

#[tokio::test]
async fn streams_without_a_key_are_few() {
    const MOST: usize = 256;
    let running = Running::start().await;
    let connect = async || {
        let endpoint =
            tonic::transport::Endpoint::from_shared(format!("http://{}", running.address)).unwrap();
        HealthClient::new(endpoint.connect().await.unwrap())
    };
    let mut open = Vec::new();
    let mut client = connect().await;
    for number in 0..MOST {
        // A connection carries a hundred streams.
        if number % 100 == 0 {
            client = connect().await;
        }
        let mut stream = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        open.push(stream);
    }
    let refused = client.watch(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(
        (refused.code(), from_status(&refused).reason),
        (Code::ResourceExhausted, Reason::Overloaded)
    );
    assert_eq!(client.check(HealthCheckRequest::default()).await.unwrap().into_inner().status, 1);
    open.pop();
    let again = async {
        while client.watch(HealthCheckRequest::default()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, again).await.expect("one is over");
}
