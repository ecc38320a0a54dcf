//! gRPC-web: unwrapped by tonic-web, and from there on gRPC.

use std::convert::Infallible;

use http::{
    HeaderMap, HeaderValue, Method as HttpMethod, Request, Response, Version,
    header::{CONNECTION, CONTENT_TYPE, HOST, TRANSFER_ENCODING, UPGRADE},
};
use hyper::body::Incoming;
use outrider_model::{Error, Reason};
use tonic::body::Body;
use tonic_web::GrpcWebLayer;
use tower::{Layer, ServiceExt};

use crate::{Shared, answer::Refusal, handler, observe::Seen};

/// What tonic-web takes.
const MEDIA_TYPES: [&str; 4] =
    ["application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text", "application/grpc-web-text+proto"];

/// Whether a request speaks gRPC-web, in any encoding.
pub(crate) fn is_web(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(MEDIA_TYPES[0].as_bytes()))
}

/// Answers a request of gRPC-web, over any version of HTTP.
pub(crate) async fn answer(shared: &Shared, request: Request<Incoming>, seen: &Seen) -> Response<Body> {
    if let Err(error) = check(&request) {
        return refused(error.into(), seen);
    }
    let inner =
        tower::service_fn(|request| async { Ok::<_, Infallible>(handler::call(shared, as_grpc(request), true, seen).await) });
    let Ok(answer) = GrpcWebLayer::new().layer(inner).oneshot(request).await;
    answer
}

/// A refusal, by headers alone.
pub(crate) fn refused(refusal: Refusal, seen: &Seen) -> Response<Body> {
    let mut answer = seen.watch(refusal.into_grpc());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPES[1]));
    answer
}

fn check(request: &Request<Incoming>) -> Result<(), Error> {
    let media_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !MEDIA_TYPES.contains(&media_type) {
        return Err(Error::new(Reason::MalformedRequest, format!("gRPC-web is taken as {}", MEDIA_TYPES.join(", "))));
    }
    if request.method() != HttpMethod::POST {
        return Err(Error::new(Reason::MethodNotAllowed, "gRPC-web is sent by POST"));
    }
    Ok(())
}

/// What belongs to the connection of HTTP/1.1 does not travel on.
fn as_grpc(mut request: Request<Body>) -> Request<Body> {
    *request.version_mut() = Version::HTTP_2;
    for name in [CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE] {
        request.headers_mut().remove(name);
    }
    for name in ["keep-alive", "proxy-connection"] {
        request.headers_mut().remove(name);
    }
    request
}
