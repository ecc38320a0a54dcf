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
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
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
    Ok(Response::from_parts(parts, Body::new(Unsent::new(shared, data.to_bytes(), None)?)))
}

/// The body of an answer of gRPC.
pub(crate) fn message(shared: &Shared, data: Bytes, trailers: HeaderMap) -> Result<Body, Error> {
    Unsent::new(shared, data, Some(trailers)).map(Body::new)
}

/// What is left of an answer.
struct Left {
    data: Bytes,
    trailers: Option<HeaderMap>,
    taken_at: Instant,
    given_up: bool,
    room: Option<OwnedSemaphorePermit>,
}

impl Left {
    fn give_up(&mut self) {
        (self.data, self.trailers, self.room, self.given_up) = (Bytes::new(), None, None, true);
    }
}

struct Unsent {
    left: Arc<Mutex<Left>>,
    /// Whether only the data come: their length is known to HTTP then.
    plain: bool,
    _watch: Option<AbortOnDropHandle<()>>,
}

impl Unsent {
    /// Fails when the room is full. What the request did is done.
    fn new(shared: &Shared, data: Bytes, trailers: Option<HeaderMap>) -> Result<Self, Error> {
        let long = data.len() > CHUNK_BYTES;
        let full = || Error::unavailable("too many answers wait to be taken; the outcome is unknown");
        let units = u32::try_from(data.len().div_ceil(ROOM_UNIT)).map_err(|_| full())?;
        let room = long.then(|| Arc::clone(&shared.unsent).try_acquire_many_owned(units).map_err(|_| full())).transpose()?;
        let plain = trailers.is_none();
        let left = Arc::new(Mutex::new(Left { data, trailers, taken_at: Instant::now(), given_up: false, room }));
        let watch = long.then(|| tokio::spawn(watch(Arc::clone(&left), shared.options.idle_timeout)));
        Ok(Self { left, plain, _watch: watch.map(AbortOnDropHandle::new) })
    }
}

fn locked(left: &Mutex<Left>) -> MutexGuard<'_, Left> {
    left.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives the answer up when nothing of it was taken for so long.
async fn watch(left: Arc<Mutex<Left>>, patience: Duration) {
    loop {
        let due = locked(&left).taken_at + patience;
        tokio::time::sleep_until(due).await;
        let mut left = locked(&left);
        if left.taken_at + patience <= Instant::now() {
            tracing::debug!(bytes = left.data.len(), "an answer was not taken and is given up");
            return left.give_up();
        }
    }
}

fn not_taken() -> Status {
    Status::cancelled("the answer was not taken in time")
}

impl http_body::Body for Unsent {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut left = locked(&self.left);
        left.taken_at = Instant::now();
        if left.given_up {
            return Poll::Ready(Some(Err(not_taken())));
        }
        let next = left.data.len().min(CHUNK_BYTES);
        if next > 0 {
            return Poll::Ready(Some(Ok(Frame::data(left.data.split_to(next)))));
        }
        Poll::Ready(left.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        let left = locked(&self.left);
        left.data.is_empty() && left.trailers.is_none() && !left.given_up
    }

    fn size_hint(&self) -> SizeHint {
        let left = locked(&self.left);
        if self.plain && !left.given_up { SizeHint::with_exact(left.data.len() as u64) } else { SizeHint::default() }
    }
}

/// The answer of a stream, which is given up when its client takes nothing for long of what there is. One of which there is nothing may
/// last.
pub(crate) fn stream(shared: &Shared, answer: Response<Body>) -> Response<Body> {
    let patience = shared.options.idle_timeout;
    if answer.body().is_end_stream() {
        return answer;
    }
    answer.map(|inner| {
        let flow = Arc::new(Mutex::new(Flow { inner: Some(inner), untaken_since: None }));
        let watch = AbortOnDropHandle::new(tokio::spawn(watch_stream(Arc::clone(&flow), patience)));
        Body::new(Flowing { flow, _watch: watch })
    })
}

/// A stream's answer under way.
struct Flow {
    /// None once it is given up.
    inner: Option<Body>,
    /// Since when there is more than the client took; none while it waits for us.
    untaken_since: Option<Instant>,
}

struct Flowing {
    flow: Arc<Mutex<Flow>>,
    _watch: AbortOnDropHandle<()>,
}

fn flow(flow: &Mutex<Flow>) -> MutexGuard<'_, Flow> {
    flow.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn watch_stream(stream: Arc<Mutex<Flow>>, patience: Duration) {
    loop {
        let since = flow(&stream).untaken_since.unwrap_or_else(Instant::now);
        tokio::time::sleep_until(since + patience).await;
        let mut stream = flow(&stream);
        if stream.untaken_since.is_some_and(|since| since + patience <= Instant::now()) {
            tracing::debug!("a stream was not taken and is given up");
            stream.inner = None;
            return;
        }
    }
}

impl http_body::Body for Flowing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut flow = flow(&self.flow);
        let Some(inner) = flow.inner.as_mut() else { return Poll::Ready(Some(Err(not_taken()))) };
        let polled = Pin::new(inner).poll_frame(cx);
        flow.untaken_since = polled.is_ready().then(Instant::now);
        polled
    }

    fn is_end_stream(&self) -> bool {
        flow(&self.flow).inner.as_ref().is_some_and(http_body::Body::is_end_stream)
    }
}
