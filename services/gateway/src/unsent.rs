//! Answers that wait to be taken: long ones take their part of a room that all share, and one of which its client takes nothing for
//! long is given up, a stream too, so that clients that do not read hold neither memory nor a connection between roles.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, Response};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use outrider_model::Error;
use outrider_rpc::Kept;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, body::Body};

use crate::{Shared, body::ROOM_UNIT};

/// Bytes that a connection is given at once. Shorter answers are not counted: the requests that they answer took as much.
const CHUNK_BYTES: usize = 16 * 1024;

/// The answer of a request of REST, of which all is there.
pub(crate) fn whole(shared: &Shared, answer: Response<Body>) -> Result<Response<Body>, Error> {
    let long = answer.body().size_hint().exact().is_some_and(|length| length > CHUNK_BYTES as u64);
    if !long {
        return Ok(answer);
    }
    let (parts, body) = answer.into_parts();
    let data = body.collect().now_or_never().and_then(Result::ok).ok_or_else(|| Error::internal("the answer is not whole"))?;
    Ok(Response::from_parts(parts, kept(shared, data.to_bytes(), None)?))
}

/// The body of an answer of gRPC.
pub(crate) fn message(shared: &Shared, data: Bytes, trailers: HeaderMap) -> Result<Body, Error> {
    kept(shared, data, Some(trailers))
}

/// The answer of a stream, which is given up when its client takes nothing for long of what there is. One of which there is nothing may
/// last.
pub(crate) fn stream(shared: &Shared, answer: Response<Body>) -> Response<Body> {
    if answer.body().is_end_stream() { answer } else { answer.map(|body| watched(shared, body)) }
}

/// Fails when the room is full. What the request did is done.
fn kept(shared: &Shared, data: Bytes, trailers: Option<HeaderMap>) -> Result<Body, Error> {
    if data.len() <= CHUNK_BYTES {
        return Ok(Body::new(Chunks { data, trailers }));
    }
    let units = u32::try_from(data.len().div_ceil(ROOM_UNIT)).ok();
    let room = units.and_then(|units| Arc::clone(&shared.unsent).try_acquire_many_owned(units).ok());
    let room = room.ok_or_else(|| Error::unavailable("too many answers wait to be taken; the outcome is unknown"))?;
    Ok(watched(shared, Body::new(Kept::new(Chunks { data, trailers }, room))))
}

/// An answer that is there, in pieces.
struct Chunks {
    data: Bytes,
    trailers: Option<HeaderMap>,
}

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let next = self.data.len().min(CHUNK_BYTES);
        if next > 0 {
            return Poll::Ready(Some(Ok(Frame::data(self.data.split_to(next)))));
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
    }

    /// HTTP is told a length only where nothing follows the data.
    fn size_hint(&self) -> SizeHint {
        if self.trailers.is_none() { SizeHint::with_exact(self.data.len() as u64) } else { SizeHint::default() }
    }
}

fn watched(shared: &Shared, inner: Body) -> Body {
    let flow = Arc::new(Mutex::new(Flow { inner: Some(inner), untaken_since: Some(Instant::now()) }));
    let watch = AbortOnDropHandle::new(tokio::spawn(watch(Arc::clone(&flow), shared.options.idle_timeout)));
    Body::new(Kept::new(Flowing(flow), watch))
}

/// An answer under way.
struct Flow {
    /// None once it is given up.
    inner: Option<Body>,
    /// Since when there is more than the client took; none while it waits for us.
    untaken_since: Option<Instant>,
}

fn locked(flow: &Mutex<Flow>) -> MutexGuard<'_, Flow> {
    flow.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives an answer up, and all that it holds, when nothing of it was taken for so long.
async fn watch(flow: Arc<Mutex<Flow>>, patience: Duration) {
    loop {
        let since = locked(&flow).untaken_since.unwrap_or_else(Instant::now);
        tokio::time::sleep_until(since + patience).await;
        let mut flow = locked(&flow);
        if flow.untaken_since.is_some_and(|since| since + patience <= Instant::now()) {
            tracing::debug!("an answer was not taken and is given up");
            flow.inner = None;
            return;
        }
    }
}

struct Flowing(Arc<Mutex<Flow>>);

impl http_body::Body for Flowing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut flow = locked(&self.0);
        let Some(inner) = flow.inner.as_mut() else {
            return Poll::Ready(Some(Err(Status::cancelled("the answer was not taken in time"))));
        };
        let polled = Pin::new(inner).poll_frame(cx);
        flow.untaken_since = polled.is_ready().then(Instant::now);
        polled
    }

    fn is_end_stream(&self) -> bool {
        locked(&self.0).inner.as_ref().is_some_and(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        locked(&self.0).inner.as_ref().map_or_else(SizeHint::default, http_body::Body::size_hint)
    }
}
