//! Messages of gRPC: a message within the bounds has no list beyond them when it is decoded,
//! however its bytes are cut. A gateway answers every gRPC or gRPC-web call, and never with a fault
//! of the server.

use std::{sync::LazyLock, time::Duration};

use bytes::Bytes;
use futures::stream;
use http::{Request, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrider_gateway::fuzzed::Connections;
use outrider_model::{Error, Reason};
use outrider_rpc::{Bounded, bounds::Weight, from_status, request_errors::request_error};
use prost_reflect::DynamicMessage;
use tokio::io::duplex;
use tonic::{Code, Status, body::Body};

use crate::{
    input::Input,
    lists,
    roles::{METHODS, Method},
    runtime,
};

/// The bytes are one message, which gets a frame.
const FRAMED: u8 = 0;
/// The bytes also pass through a gateway; with gRPC-web, as base64.
const GATEWAY: u8 = 1;
const WEB: u8 = 2;
const TEXT: u8 = 3;

static GATEWAYS: LazyLock<Connections> = LazyLock::new(crate::roles::gateway);

/// Takes a byte for the method, and the body.
pub fn run(data: &[u8]) {
    let Some((number, data)) = data.split_first() else { return };
    let method = &METHODS[usize::from(*number) % METHODS.len()];
    let mut input = Input::of(data);
    if input.has(FRAMED) {
        input.bytes = framed(&input.bytes);
    }
    bounded(method, &input);
    if input.has(GATEWAY) {
        runtime::run(Duration::from_secs(600), through_a_gateway(method, input));
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("inputs are small").to_be_bytes();
    [&[0], length.as_slice(), message].concat()
}

/// Asserts that a message of the method at this path passes the bounds.
pub fn passes(path: &str, message: &[u8]) {
    let outcome = pass(path, vec![framed(message).into()]);
    assert!(outcome.is_ok(), "{path}: {outcome:?}");
}

/// Returns what passes the bounds.
fn pass(path: &str, pieces: Vec<Bytes>) -> Result<Bytes, Error> {
    let pieces = stream::iter(pieces.into_iter().map(|piece| Ok::<_, Status>(Frame::data(piece))));
    let body = Bounded::of(path, Body::new(StreamBody::new(pieces)));
    let collected = futures::executor::block_on(body.collect());
    collected.map(|body| body.to_bytes()).map_err(|status| from_status(&status))
}

fn bounded(method: &Method, input: &Input) {
    let pieces: Vec<Bytes> = input.pieces().map(Bytes::copy_from_slice).collect();
    let mut weight = Weight::of(method.path).expect("it is a public method");
    // It stops at the first error.
    let _ = pieces.iter().try_for_each(|piece| weight.push(piece).map(drop));
    let in_pieces = pass(method.path, pieces);
    let whole = pass(method.path, vec![input.bytes.clone().into()]);
    let reason = |outcome: &Result<Bytes, Error>| {
        outcome.as_ref().err().map(|error| (error.reason, error.violations.clone()))
    };
    assert_eq!(reason(&in_pieces), reason(&whole), "in pieces and whole");
    match whole {
        Ok(passed) => {
            assert_eq!(passed, input.bytes);
            messages(&passed).for_each(|message| decoded(method, message));
        }
        Err(error) => assert!(
            matches!(error.reason, Reason::InvalidField | Reason::MalformedRequest),
            "{error}"
        ),
    }
}

/// Returns the complete messages in a body.
fn messages(mut body: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (prefix, rest) = body.split_first_chunk::<5>()?;
        let [flag, a, b, c, d] = *prefix;
        let (message, after) =
            rest.split_at_checked(usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?)?;
        body = after;
        (flag == 0).then_some(message)
    })
}

fn decoded(method: &Method, message: &[u8]) {
    let Ok(again) = (method.decode)(message) else { return };
    let again = DynamicMessage::decode(method.input(), again.as_slice())
        .expect("it was encoded by its own type");
    lists::check(&again);
}

async fn through_a_gateway(method: &Method, input: Input) {
    let (near, far) = duplex(1024 * 1024);
    let serving = tokio::spawn(GATEWAYS.serve(far));
    let status = if input.has(WEB) {
        web(near, method, &input).await
    } else {
        grpc(near, method, &input).await
    };
    if let Some(status) = status {
        let ours =
            [Code::Internal, Code::Unknown, Code::DataLoss, Code::Unavailable, Code::Aborted];
        assert!(!ours.contains(&status.code()), "{}: {status:?}", method.path);
        // Outrider's own errors have details with the reason.
        assert!(
            status.code() == Code::Ok || request_error(&status).reason != Reason::Internal,
            "{status:?}"
        );
    }
    serving.abort();
}

fn request(method: &Method, media_type: &str) -> http::request::Builder {
    const KEY: &str =
        "Bearer ork_00000000000000000000000000_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let request = Request::post(format!("http://gateway{}", method.path));
    request.header("content-type", media_type).header("te", "trailers").header("authorization", KEY)
}

async fn grpc(near: tokio::io::DuplexStream, method: &Method, input: &Input) -> Option<Status> {
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near)).await;
    let (mut sender, connection) = handshake.expect("a gateway speaks HTTP/2");
    let connection = tokio::spawn(connection);
    let pieces: Vec<Bytes> = input.pieces().map(Bytes::copy_from_slice).collect();
    let pieces = stream::iter(
        pieces.into_iter().map(|piece| Ok::<_, std::convert::Infallible>(Frame::data(piece))),
    );
    let request =
        request(method, "application/grpc").version(Version::HTTP_2).body(StreamBody::new(pieces));
    let answer = sender.send_request(request.expect("a request")).await.expect("an answer");
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.expect("an answer to its end");
    connection.abort();
    let trailers = body.trailers().unwrap_or(&parts.headers);
    Some(Status::from_header_map(trailers).expect("an answer has a status"))
}

async fn web(near: tokio::io::DuplexStream, method: &Method, input: &Input) -> Option<Status> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near))
        .await
        .expect("a gateway speaks HTTP/1.1");
    let connection = tokio::spawn(connection);
    let media_type =
        if input.has(TEXT) { "application/grpc-web-text" } else { "application/grpc-web" };
    let request = request(method, media_type)
        .header("host", "gateway")
        .body(Full::new(Bytes::from(input.bytes.clone())));
    let answer = sender.send_request(request.expect("a request")).await.expect("an answer");
    let (parts, body) = answer.into_parts();
    assert_eq!(parts.status, StatusCode::OK);
    let body = body.collect().await.expect("an answer to its end").to_bytes();
    connection.abort();
    Status::from_header_map(&parts.headers).or_else(|| trailer(&body, input.has(TEXT)))
}

/// Returns the status in the last frame of a gRPC-web answer.
fn trailer(body: &[u8], text: bool) -> Option<Status> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let decoded = if text { STANDARD.decode(body).ok()? } else { body.to_vec() };
    let mut rest = decoded.as_slice();
    while let Some(([flag, length @ ..], after)) = rest.split_first_chunk::<5>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (frame, after) = after.split_at_checked(length)?;
        if flag & 0x80 != 0 {
            let lines = std::str::from_utf8(frame).ok()?.lines();
            let fields = lines.filter_map(|line| line.split_once(':'));
            let fields = fields
                .filter_map(|(name, value)| Some((name.parse().ok()?, value.trim().parse().ok()?)));
            return Status::from_header_map(&fields.collect());
        }
        rest = after;
    }
    panic!("an answer without a status: {decoded:?}")
}
