//! Ends a stream early: at a deadline, at a shutdown, or when its key is revoked. Trailers tell the
//! caller why. A stream never ends in the middle of a message.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::Frame;
use outrider_model::Error;
use tonic::{Status, body::Body};

use super::{cause, framing::MessageFraming, status::to_status};

/// Returns the answer of a stream, which ends with the error of `end` as soon as `end` resolves and
/// the current message is complete. If the stream breaks off between two messages, it ends with
/// `UNAVAILABLE`.
pub fn until(
    answer: Response<Body>,
    end: impl Future<Output = Error> + Send + 'static,
) -> Response<Body> {
    // An error in the headers has no body.
    if answer.headers().contains_key("grpc-status") {
        return answer;
    }
    answer.map(|inner| {
        Body::new(Until {
            inner: Some(inner),
            end: Box::pin(end),
            ended: None,
            framing: MessageFraming::default(),
        })
    })
}

struct Until {
    /// `None` once the stream has ended.
    inner: Option<Body>,
    end: Pin<Box<dyn Future<Output = Error> + Send>>,
    /// The error to end with, once `end` has resolved.
    ended: Option<Error>,
    framing: MessageFraming,
}

impl http_body::Body for Until {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(inner) = this.inner.as_mut() else { return Poll::Ready(None) };
        if this.ended.is_none()
            && let Poll::Ready(error) = this.end.as_mut().poll(cx)
        {
            this.ended = Some(error);
        }
        if this.framing.is_between_messages()
            && let Some(error) = this.ended.take()
        {
            return Poll::Ready(this.finish(error));
        }
        match ready!(Pin::new(inner).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.framing.pass(data);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) if this.framing.is_between_messages() => {
                tracing::debug!(error = cause::of_status(&error), "a stream broke off");
                Poll::Ready(
                    this.finish(Error::unavailable("a server that is needed broke off its answer")),
                )
            }
            other => Poll::Ready(other),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(http_body::Body::is_end_stream)
    }
}

impl Until {
    /// Drops the rest of the inner stream and returns the trailers.
    fn finish(&mut self, error: Error) -> Option<Result<Frame<Bytes>, Status>> {
        self.inner.take()?;
        let mut trailers = HeaderMap::new();
        Some(to_status(error).add_header(&mut trailers).map(|()| Frame::trailers(trailers)))
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt, channel::oneshot, stream};
    use http_body::Body as _;
    use http_body_util::{BodyExt, StreamBody};
    use outrider_model::Reason;

    use super::*;

    fn answer(
        frames: impl futures::Stream<Item = Result<Frame<Bytes>, Status>> + Send + 'static,
    ) -> Response<Body> {
        Response::new(Body::new(StreamBody::new(frames)))
    }

    fn data(bytes: &'static [u8]) -> Result<Frame<Bytes>, Status> {
        Ok(Frame::data(Bytes::from_static(bytes)))
    }

    async fn reason(body: &mut Body) -> Reason {
        let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert!(body.frame().now_or_never().flatten().is_none() && body.is_end_stream());
        crate::wire::status::from_status(&Status::from_header_map(&trailers).unwrap()).reason
    }

    #[tokio::test]
    async fn a_stream_ends_between_two_messages() {
        let (end, told_to_end) = oneshot::channel();
        let frames = [data(b"\0\0\0\0\x02a"), data(b"b"), data(b"\0\0\0\0\x01c")];
        let ended = async move { told_to_end.await.unwrap() };
        let mut body =
            until(answer(stream::iter(frames).chain(stream::pending())), ended).into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "\0\0\0\0\x02a");
        end.send(Error::overloaded("x")).unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "b");
        assert_eq!(reason(&mut body).await, Reason::Overloaded);
    }

    #[tokio::test]
    async fn a_stream_that_waits_is_ended_and_one_that_breaks_says_so() {
        let end = async { Error::internal("x") };
        let mut body = until(answer(stream::pending()), end).into_body();
        assert_eq!(reason(&mut body).await, Reason::Internal);
        let broken = stream::iter([data(b"\0\0\0\0\x01c"), Err(Status::unknown("reset"))]);
        let mut body = until(answer(broken), std::future::pending()).into_body();
        body.frame().await.unwrap().unwrap();
        assert_eq!(reason(&mut body).await, Reason::Unavailable);
        let broken = stream::iter([data(b"\0\0\0\0\x02c"), Err(Status::unknown("reset"))]);
        let mut body = until(answer(broken), std::future::pending()).into_body();
        body.frame().await.unwrap().unwrap();
        assert!(body.frame().await.unwrap().is_err(), "half a message is no message");
    }

    #[tokio::test]
    async fn a_stream_that_ends_by_itself_is_unchanged() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        let frames = stream::iter([data(b"\0\0\0\0\x01c"), Ok(Frame::trailers(trailers))]);
        let body =
            until(answer(frames), std::future::pending()).into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        let refused =
            until(to_status(Error::not_found("x")).into_http(), async { Error::internal("never") });
        assert_eq!(refused.headers()["grpc-status"], "5");
    }
}
