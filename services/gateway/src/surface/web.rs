//! gRPC-web: decoded by tonic-web, and handled as gRPC from there on.

use std::convert::Infallible;

use http::{
    HeaderValue, Request, Response, Version,
    header::{CONNECTION, CONTENT_TYPE, HOST, TRANSFER_ENCODING, UPGRADE},
};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tonic::body::Body;
use tonic_web::GrpcWebLayer;
use tower::{Layer, ServiceExt};

use crate::{
    exchange::{body, deadline::Deadline, observe::SeenStatus},
    surface::{Surfaces, grpc_call},
};

/// The media types of answers and requests, as tonic-web writes them.
const MEDIA_TYPE: &str = "application/grpc-web+proto";
const TEXT_MEDIA_TYPE: &str = "application/grpc-web-text+proto";

/// Converts a refusal that is made before the request is decoded.
pub(crate) fn refused(mut answer: Response<Body>) -> Response<Body> {
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    answer
}

/// Answers a gRPC-web request, as bytes or as base64 (`text`), over any version of HTTP.
pub(crate) async fn answer(
    surfaces: &Surfaces,
    mut request: Request<Incoming>,
    text: bool,
    deadline: &Deadline,
    seen: &SeenStatus,
) -> Response<Body> {
    // tonic-web recognizes the media types in this spelling only.
    let media_type = HeaderValue::from_static(if text { TEXT_MEDIA_TYPE } else { MEDIA_TYPE });
    request.headers_mut().insert(CONTENT_TYPE, media_type);
    // tonic-web passes errors on as text.
    let request = request.map(|incoming| {
        incoming.map_err(|error| if body::is_gone(&error) { body::GONE } else { body::BROKE_OFF })
    });
    let inner = tower::service_fn(|request| async {
        Ok::<_, Infallible>(grpc_call::call(surfaces, as_grpc(request), true, deadline, seen).await)
    });
    let Ok(answer) = GrpcWebLayer::new().layer(inner).oneshot(request).await;
    answer
}

/// Removes what belongs to the HTTP/1.1 connection.
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
