//! Errors of malformed gRPC requests.
//!
//! The gRPC library answers INTERNAL for a frame or a message that it cannot read, as if the server
//! were at fault. Every service runs behind [`RequestErrors`], which answers INVALID_ARGUMENT with
//! a reason instead. Outrider's own errors pass unchanged; they are recognized by their details.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use outrider_model::{Error, Reason};
use tonic::{Code, Status, body::Body};
use tower::Service;

use super::{
    framing::MessageFraming,
    status::{from_status, to_status},
};

/// Precedes the library's text about a request that it cannot read.
const MALFORMED: &str = "the request is malformed: ";
/// Error of bytes that are not a protobuf message.
const NOT_PROTOBUF: &str = "the message is not well-formed protobuf";
/// Error of a call with more than one message.
const MORE: &str = "the request holds more than one message";

/// Whether an error says that the bytes of a request could not be read. The process that encoded
/// them is at fault, not the caller whose request it encoded.
#[must_use]
pub fn is_unreadable(error: &Error) -> bool {
    let text = &error.message;
    let unread = text.starts_with(MALFORMED) || [MORE, NOT_PROTOBUF].contains(&text.as_ref());
    error.reason == Reason::MalformedRequest && unread
}

/// Returns the error that explains to the caller why its request could not be read.
#[must_use]
pub fn request_error(status: &Status) -> Error {
    if !status.details().is_empty() {
        return from_status(status);
    }
    let text = status.message();
    match status.code() {
        Code::Internal | Code::DataLoss => malformed(format!("{MALFORMED}{}", plain(text))),
        // The library names the limit last, as in "the limit is: 4194304 bytes".
        Code::OutOfRange | Code::ResourceExhausted => {
            let limit = text.split_once("limit is: ").map(|(_, limit)| limit);
            let message = limit.map_or("the message is too large".into(), |limit| {
                format!("the message is over {limit}")
            });
            Error::new(Reason::TooLarge, message)
        }
        Code::Unimplemented if text.contains("compressed with") => Error::new(
            Reason::UnsupportedMediaType,
            "messages must not be compressed: grpc-encoding must be identity",
        ),
        _ => from_status(status),
    }
}

/// Removes the library's preambles from its text.
fn plain(text: &str) -> &str {
    let text = text.strip_prefix("protocol error: ").unwrap_or(text);
    let text = text.strip_suffix(", while sending request").unwrap_or(text);
    text.strip_prefix("failed to decode Protobuf message: ").unwrap_or(text)
}

/// Returns the error of bytes that are not a protobuf message.
pub(crate) fn malformed_protobuf() -> Error {
    malformed(NOT_PROTOBUF)
}

fn malformed(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Reason::MalformedRequest, message)
}

/// A layer in front of generated services. It answers malformed requests with INVALID_ARGUMENT and
/// details, and refuses a second message if the method takes one.
#[derive(Clone)]
pub struct RequestErrors<S> {
    inner: S,
    /// Whether the client of the method at this path sends a stream.
    client_streams: fn(&str) -> bool,
}

impl<S> RequestErrors<S> {
    /// Wraps `inner`.
    pub fn new(inner: S, client_streams: fn(&str) -> bool) -> Self {
        Self { inner, client_streams }
    }
}

impl<S> Service<Request<Body>> for RequestErrors<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let single = !(self.client_streams)(request.uri().path());
        let request = if single {
            request.map(|body| {
                Body::new(Single { body, framing: MessageFraming::default(), whole: false })
            })
        } else {
            request
        };
        let answer = self.inner.call(request);
        Box::pin(async move { answer.await.map(explained) })
    }
}

/// Replaces a status of the library, which has no details, by one of ours.
fn explained(answer: Response<Body>) -> Response<Body> {
    if !answer.headers().contains_key("grpc-status") {
        return answer;
    }
    match Status::from_header_map(answer.headers()).filter(|status| status.details().is_empty()) {
        Some(status) => match status.code() {
            Code::Internal
            | Code::DataLoss
            | Code::OutOfRange
            | Code::ResourceExhausted
            | Code::Unimplemented => to_status(request_error(&status)).into_http(),
            _ => answer,
        },
        None => answer,
    }
}

/// The body of a request that must contain one message.
struct Single {
    body: Body,
    framing: MessageFraming,
    /// Whether the message has passed.
    whole: bool,
}

impl http_body::Body for Single {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref())
            && !data.is_empty()
        {
            let end = if self.whole { Some(0) } else { self.framing.end_in(data) };
            if end.is_some_and(|end| end < data.len()) {
                return Poll::Ready(Some(Err(to_status(malformed(MORE)))));
            }
            self.whole |= end.is_some();
            self.framing.pass(data);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use http_body_util::{BodyExt, Full, StreamBody};
    use outrider_proto::ingest::{
        BatchPublishEventsRequest, BatchPublishEventsResponse, PublishEventRequest,
        PublishEventResponse, StreamEventsRequest, StreamEventsResponse,
        ingest_service_server::{IngestService, IngestServiceServer},
    };
    use tonic::{Streaming, service::Routes};
    use tower::ServiceExt;

    use super::*;

    struct Ingest;

    #[tonic::async_trait]
    impl IngestService for Ingest {
        async fn publish_event(
            &self,
            _: tonic::Request<PublishEventRequest>,
        ) -> Result<tonic::Response<PublishEventResponse>, Status> {
            Ok(tonic::Response::new(PublishEventResponse::default()))
        }

        async fn batch_publish_events(
            &self,
            _: tonic::Request<BatchPublishEventsRequest>,
        ) -> Result<tonic::Response<BatchPublishEventsResponse>, Status> {
            Err(to_status(Error::internal("ours")))
        }

        type StreamEventsStream = stream::Empty<Result<StreamEventsResponse, Status>>;

        async fn stream_events(
            &self,
            request: tonic::Request<Streaming<StreamEventsRequest>>,
        ) -> Result<tonic::Response<Self::StreamEventsStream>, Status> {
            let mut messages = request.into_inner();
            while let Some(message) = messages.message().await.transpose() {
                message.map_err(|status| to_status(request_error(&status)))?;
            }
            Ok(tonic::Response::new(stream::empty()))
        }
    }

    async fn call(method: &str, encoding: &str, body: Body) -> Result<(), (Code, Error)> {
        let routes = Routes::new(IngestServiceServer::new(Ingest).max_decoding_message_size(100));
        let client_streams = |path: &str| path.ends_with("/StreamEvents");
        let mut service = RequestErrors::new(routes.prepare(), client_streams);
        let request = Request::post(format!("/outrider.ingest.v1.IngestService/{method}"))
            .header("content-type", "application/grpc")
            .header("grpc-encoding", encoding);
        let answer =
            service.ready().await.unwrap().call(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        let trailers = body.collect().await.unwrap().trailers().cloned().unwrap_or_default();
        let status = Status::from_header_map(&parts.headers)
            .or_else(|| Status::from_header_map(&trailers))
            .unwrap();
        if status.code() == Code::Ok { Ok(()) } else { Err((status.code(), from_status(&status))) }
    }

    fn full(bytes: &'static [u8]) -> Body {
        Body::new(Full::new(Bytes::from_static(bytes)))
    }

    #[tokio::test]
    async fn an_unreadable_request_is_the_callers_fault() {
        for method in ["PublishEvent", "StreamEvents"] {
            for bytes in [
                b"\x02\0\0\0\0".as_slice(),
                b"\x01\0\0\0\0",
                b"\0\0\0",
                b"\0\0\0\0\x05abc",
                b"\0\0\0\0\x02\x0a\x05",
                b"\0\0\0\0\x03\x0a\x01\xff",
                b"\0\0\0\0\0\0",
            ] {
                let (code, error) =
                    call(method, "identity", full(bytes)).await.expect_err("it is malformed");
                assert_eq!(
                    (code, error.reason),
                    (Code::InvalidArgument, Reason::MalformedRequest),
                    "{method} {bytes:?}: {error}"
                );
                assert!(is_unreadable(&error), "{error}");
            }
            let (code, error) = call(method, "identity", full(b"\0\0\0\0\x65")).await.unwrap_err();
            assert_eq!((code, error.reason), (Code::InvalidArgument, Reason::TooLarge));
            assert_eq!(error.message, "the message is over 100 bytes");
            let (code, error) = call(method, "gzip", full(b"\x01\0\0\0\0")).await.unwrap_err();
            assert_eq!((code, error.reason), (Code::Unimplemented, Reason::UnsupportedMediaType));
        }
    }

    #[tokio::test]
    async fn a_call_has_one_message_and_a_stream_as_many_as_it_likes() {
        const TWO: &[u8] = b"\0\0\0\0\0\0\0\0\0\0";
        assert!(call("PublishEvent", "identity", full(&TWO[..5])).await.is_ok());
        assert!(call("StreamEvents", "identity", full(TWO)).await.is_ok());
        assert!(call("StreamEvents", "identity", Body::empty()).await.is_ok());
        for cut in 0..TWO.len() {
            let pieces = [&TWO[..cut], &TWO[cut..]]
                .map(|piece| Ok::<_, Status>(Frame::data(Bytes::from_static(piece))));
            let body = Body::new(StreamBody::new(stream::iter(pieces)));
            let (_, error) =
                call("PublishEvent", "identity", body).await.expect_err("two messages");
            assert_eq!(error.reason, Reason::MalformedRequest, "at {cut}");
            assert!(is_unreadable(&error), "{error}");
        }
        let (_, error) =
            call("PublishEvent", "identity", Body::empty()).await.expect_err("no message");
        assert_eq!(error.reason, Reason::MalformedRequest);
    }

    #[test]
    fn an_error_about_a_request_that_was_read_is_not_about_its_bytes() {
        let nul = Error::new(Reason::MalformedRequest, "the database refuses the data");
        assert!(!is_unreadable(&nul) && !is_unreadable(&Error::field("event", "is required")));
        assert!(is_unreadable(&from_status(&to_status(malformed_protobuf()))));
    }

    #[tokio::test]
    async fn own_errors_pass() {
        let (code, error) =
            call("BatchPublishEvents", "identity", full(b"\0\0\0\0\0")).await.unwrap_err();
        assert_eq!((code, error), (Code::Internal, Error::internal("ours")));
        let (code, _) = call("NoSuchMethod", "identity", full(b"\0\0\0\0\0")).await.unwrap_err();
        assert_eq!(code, Code::Unimplemented);
    }
}
