//! A client's stream at the shutdown of the gateway: its side is ended, so that the role tells what became of all that came, and
//! then the client is told to connect again. Cut in the middle, the client would have to send more of it twice.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Response};
use http_body::Frame;
use outrider_model::Error;
use outrider_rpc::to_status;
use tonic::{Code, Status, body::Body};

use crate::Shared;

/// The client's side of a stream.
pub(crate) struct ClientSide<B> {
    /// None once it is ended.
    inner: Option<B>,
    draining: BoxFuture<'static, ()>,
    ended: Ended,
}

/// Tells the server's side that the client's was ended by us.
#[derive(Clone, Default)]
pub(crate) struct Ended(Arc<AtomicBool>);

/// The client's side, which ends when the gateway drains.
pub(crate) fn watched<B>(shared: &Shared, inner: B) -> (ClientSide<B>, Ended) {
    let ended = Ended::default();
    (ClientSide { inner: Some(inner), draining: Box::pin(shared.draining()), ended: ended.clone() }, ended)
}

impl<B: http_body::Body<Data = Bytes> + Unpin> http_body::Body for ClientSide<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(inner) = self.inner.as_mut() else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(inner).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        ready!(self.draining.as_mut().poll(cx));
        self.ended.0.store(true, Ordering::Release);
        self.inner = None;
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(http_body::Body::is_end_stream)
    }
}

/// The server's side: a good end that came of ours is told as what it is.
pub(crate) fn told(answer: Response<Body>, ended: Ended) -> Response<Body> {
    answer.map(|inner| Body::new(ServerSide { inner, ended }))
}

struct ServerSide {
    inner: Body,
    ended: Ended,
}

impl http_body::Body for ServerSide {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let good = |frame: &Frame<Bytes>| {
            frame.trailers_ref().and_then(Status::from_header_map).is_some_and(|status| status.code() == Code::Ok)
        };
        if self.ended.0.load(Ordering::Acquire) && matches!(&frame, Some(Ok(frame)) if good(frame)) {
            let mut trailers = HeaderMap::new();
            let told = to_status(Error::shutting_down()).add_header(&mut trailers);
            return Poll::Ready(Some(told.map(|()| Frame::trailers(trailers))));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}
