//! Calls from REST to a role.

use bytes::{BufMut, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Version,
    header::{AUTHORIZATION, CONTENT_TYPE, TE},
};
use http_body_util::{BodyExt, Full};
use outrider_model::{Error, Principal, Reason};
use outrider_rpc::{from_status, request_errors, server::Backend};
use outrider_telemetry::TraceContext;
use prost::Message;
use prost_reflect::DynamicMessage;
use tonic::{Code, Status, body::Body};
use tower::{Service, ServiceExt};

use crate::{
    exchange::fault::{broken_off, fault},
    request_id,
};

/// Length of the prefix of a message: a flag for compression, and the length in four bytes.
pub(crate) const PREFIX_BYTES: usize = 5;

/// Returns the client's headers that the role needs.
pub(crate) fn metadata(headers: &HeaderMap) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    for name in [AUTHORIZATION, request_id::HEADER].into_iter().chain(TraceContext::HEADERS) {
        for value in headers.get_all(&name) {
            metadata.append(name.clone(), value.clone());
        }
    }
    metadata
}

/// Sends a framed message. Returns the bytes of the answer's message, which may have at most
/// `limit` bytes.
pub(crate) async fn unary(
    backend: Backend,
    path: &str,
    headers: HeaderMap,
    message: Bytes,
    limit: usize,
) -> Result<Bytes, Error> {
    let (parts, body) = open(backend, path, headers, message, None).await?.into_parts();
    let (data, trailers) = read(body, limit).await?;
    match Status::from_header_map(trailers.as_ref().unwrap_or(&parts.headers)) {
        Some(status) if status.code() == Code::Ok => unframe(data),
        Some(status) => Err(error_of(path, &status)),
        None => Err(Error::unavailable("a server that is needed broke off its answer")),
    }
}

/// Converts the status that a role returned for a call made from a REST request. If the role cannot
/// read the message, that is a fault of the transcoder, not of the caller.
fn error_of(path: &str, status: &Status) -> Error {
    match from_status(status) {
        error if request_errors::is_unreadable(&error) => {
            tracing::error!(path, %error, "a role cannot read a message made from a REST request");
            Error::internal("a fault of the server")
        }
        error => error,
    }
}

/// Sends a message and returns the answer as soon as it begins, unless it is an error. A stream is
/// counted in the share of `caller`.
pub(crate) async fn open(
    mut backend: Backend,
    path: &str,
    headers: HeaderMap,
    message: Bytes,
    caller: Option<Principal>,
) -> Result<Response<Body>, Error> {
    let mut request = request(path, headers, message)?;
    if let Some(caller) = caller {
        request.extensions_mut().insert(caller);
    }
    let Ok(ready) = backend.ready().await;
    let Ok(answer) = ready.call(request).await;
    if let Some(status) =
        Status::from_header_map(answer.headers()).filter(|status| status.code() != Code::Ok)
    {
        return Err(error_of(path, &status));
    }
    if answer.status() != StatusCode::OK {
        return Err(Error::unavailable("a server that is needed gave an answer that is not gRPC"));
    }
    Ok(answer)
}

/// Frames a message as gRPC does.
pub(crate) fn frame(message: &DynamicMessage) -> Result<Bytes, Error> {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).map_err(fault("the message is too large for gRPC"))?);
    message.encode(&mut frame).map_err(fault("the message does not encode"))?;
    Ok(frame.freeze())
}

fn request(path: &str, headers: HeaderMap, frame: Bytes) -> Result<Request<Body>, Error> {
    let mut request = Request::new(Body::new(Full::new(frame)));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = path.parse().map_err(fault("the method has no path"))?;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = headers;
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    Ok(request)
}

/// Reads the answer to its end. Returns its data, and its trailers if there are any.
pub(crate) async fn read(
    mut body: Body,
    limit: usize,
) -> Result<(Bytes, Option<HeaderMap>), Error> {
    let (mut frames, mut length, mut trailers) = (Vec::new(), 0, None);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|status| broken_off(&status))?;
        match frame.into_data() {
            Ok(data) if length + data.len() > limit + PREFIX_BYTES => {
                return Err(Error::new(
                    Reason::TooLarge,
                    format!("the answer is over {limit} bytes: ask for a smaller page"),
                ));
            }
            Ok(data) => {
                length += data.len();
                frames.push(data);
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((joined(frames), trailers))
}

/// Usually there is one frame, and then nothing is copied.
fn joined(mut frames: Vec<Bytes>) -> Bytes {
    if frames.len() > 1 { frames.concat().into() } else { frames.pop().unwrap_or_default() }
}

fn unframe(mut data: Bytes) -> Result<Bytes, Error> {
    let length = |prefix: &[u8]| match prefix {
        [0, a, b, c, d] => usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).ok(),
        _ => None,
    };
    let prefix = data.split_to(PREFIX_BYTES.min(data.len()));
    if length(&prefix) == Some(data.len()) {
        Ok(data)
    } else {
        Err(Error::internal("the answer is not one gRPC message"))
    }
}

#[cfg(test)]
mod tests {
    use outrider_rpc::to_status;

    use super::*;

    #[test]
    fn what_a_role_cannot_read_is_a_fault_of_the_transcoder() {
        let malformed = |message: &'static str| Error::new(Reason::MalformedRequest, message);
        let of = |error: Error| error_of("/x", &to_status(error)).reason;
        assert_eq!(of(malformed("the request is malformed: unexpected end")), Reason::Internal);
        assert_eq!(of(malformed("the message is not well-formed protobuf")), Reason::Internal);
        assert_eq!(of(malformed("the database refuses the data")), Reason::MalformedRequest);
        assert_eq!(of(Error::field("event", "is required")), Reason::InvalidField);
    }

    #[test]
    fn exactly_one_plain_message_is_an_answer() {
        assert_eq!(unframe(Bytes::from_static(b"\0\0\0\0\x02hi")).unwrap(), "hi");
        for bad in [
            b"".as_slice(),
            b"\0\0\0",
            b"\x01\0\0\0\x02hi",
            b"\0\0\0\0\x03hi",
            b"\0\0\0\0\x02hi\0\0\0\0\0",
        ] {
            assert!(unframe(Bytes::copy_from_slice(bad)).is_err(), "{bad:?}");
        }
    }
}
