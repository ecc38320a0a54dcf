//! Answers that wait for their clients. A connection gets an answer in small pieces, and what is
//! left of a long answer counts toward its caller's share of a room. If a client takes nothing of
//! an answer or a stream for the idle timeout, the gateway gives it up. So clients that do not read
//! hold neither memory nor a connection between roles.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, Response};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use outrider_model::Error;
use outrider_rpc::{
    HoldingBody,
    pieces::{PIECE_BYTES, piece},
};
use outrider_shares::{Holder, Share};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, body::Body};

use crate::exchange::Shared;

/// Bytes that a connection gets at once. Shorter answers are not counted: their requests took as
/// much.
pub(crate) const CHUNK_BYTES: usize = PIECE_BYTES;

/// Wraps a REST answer, which is complete.
pub(crate) fn whole(
    shared: &Shared,
    holder: Holder,
    answer: Response<Body>,
) -> Result<Response<Body>, Error> {
    let long = answer.body().size_hint().exact().is_some_and(|length| length > CHUNK_BYTES as u64);
    if !long {
        return Ok(answer);
    }
    let (parts, body) = answer.into_parts();
    let data = body
        .collect()
        .now_or_never()
        .and_then(Result::ok)
        .ok_or_else(|| Error::internal("the answer is not complete"))?;
    Ok(Response::from_parts(parts, kept(shared, holder, data.to_bytes(), None)?))
}

/// Returns the body of a gRPC answer.
pub(crate) fn message(
    shared: &Shared,
    holder: Holder,
    data: Bytes,
    trailers: HeaderMap,
) -> Result<Body, Error> {
    kept(shared, holder, data, Some(trailers))
}

/// Wraps the answer of a stream. It is given up if its client does not take the available data in
/// time. A stream without available data may last.
pub(crate) fn stream(shared: &Shared, holder: Holder, answer: Response<Body>) -> Response<Body> {
    if answer.body().is_end_stream() {
        answer
    } else {
        answer.map(|body| watched(shared, holder, body))
    }
}

/// Fails if there is no room for the caller. The effects of the request remain.
fn kept(
    shared: &Shared,
    holder: Holder,
    data: Bytes,
    trailers: Option<HeaderMap>,
) -> Result<Body, Error> {
    if data.len() <= CHUNK_BYTES {
        return Ok(Body::new(Chunks { data, trailers }));
    }
    let room = shared.unsent.take(holder, data.len());
    let room = room.map_err(|exhausted| {
        Error::unavailable(format!("{exhausted}; the outcome of the request is unknown"))
    })?;
    Ok(watched(shared, holder, Body::new(HoldingBody::new(Chunks { data, trailers }, room))))
}

/// A complete answer, in pieces.
struct Chunks {
    data: Bytes,
    trailers: Option<HeaderMap>,
}

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let next = self.data.len().min(CHUNK_BYTES);
        if next > 0 {
            return Poll::Ready(Some(Ok(Frame::data(self.data.split_to(next)))));
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
    }

    /// Tells HTTP the length only if no trailers follow the data.
    fn size_hint(&self) -> SizeHint {
        if self.trailers.is_none() {
            SizeHint::with_exact(self.data.len() as u64)
        } else {
            SizeHint::default()
        }
    }
}

fn watched(shared: &Shared, holder: Holder, inner: Body) -> Body {
    let (rest, room) = (Bytes::new(), shared.unsent.share(holder));
    let flow = Arc::new(Mutex::new(Flow {
        inner: Some(inner),
        rest,
        room,
        untaken_since: Some(Instant::now()),
    }));
    let watch =
        AbortOnDropHandle::new(tokio::spawn(watch(Arc::clone(&flow), shared.options.idle_timeout)));
    Body::new(HoldingBody::new(Flowing(flow), watch))
}

/// An answer that is being sent.
struct Flow {
    /// `None` once it is given up.
    inner: Option<Body>,
    /// The rest of a long frame, and the room of the whole frame.
    rest: Bytes,
    room: Share,
    /// Since when data is available that the client has not taken. `None` while the client waits
    /// for data.
    untaken_since: Option<Instant>,
}

impl Flow {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(piece(&mut self.rest))));
        }
        self.room.shrink(self.room.amount());
        let Some(inner) = self.inner.as_mut() else {
            return Poll::Ready(Some(Err(Status::cancelled("the answer was not taken in time"))));
        };
        match ready!(Pin::new(inner).poll_frame(cx)) {
            Some(Ok(frame)) if frame.data_ref().is_some_and(|data| data.len() > CHUNK_BYTES) => {
                self.rest = frame.into_data().unwrap_or_default();
                // The data is already in memory. Code that builds long messages of a stream takes
                // room for them before.
                self.room.exceed(self.rest.len());
                Poll::Ready(Some(Ok(piece(&mut self.rest))))
            }
            other => Poll::Ready(other),
        }
    }

    fn give_up(&mut self) {
        (self.inner, self.rest) = (None, Bytes::new());
        self.room.shrink(self.room.amount());
    }
}

fn locked(flow: &Mutex<Flow>) -> MutexGuard<'_, Flow> {
    flow.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives up an answer and everything that it holds, if nothing of it is taken for `patience`.
async fn watch(flow: Arc<Mutex<Flow>>, patience: Duration) {
    loop {
        let since = locked(&flow).untaken_since.unwrap_or_else(Instant::now);
        tokio::time::sleep_until(since + patience).await;
        let mut flow = locked(&flow);
        if flow.untaken_since.is_some_and(|since| since + patience <= Instant::now()) {
            tracing::debug!("the client did not take an answer, which is given up");
            flow.give_up();
            return;
        }
    }
}

struct Flowing(Arc<Mutex<Flow>>);

impl http_body::Body for Flowing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut flow = locked(&self.0);
        let polled = flow.poll(cx);
        flow.untaken_since = polled.is_ready().then(Instant::now);
        polled
    }

    fn is_end_stream(&self) -> bool {
        let flow = locked(&self.0);
        flow.rest.is_empty() && flow.inner.as_ref().is_some_and(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let flow = locked(&self.0);
        let inner = flow.inner.as_ref().filter(|_| flow.rest.is_empty());
        inner.map_or_else(SizeHint::default, http_body::Body::size_hint)
    }
}
