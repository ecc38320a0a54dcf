//! Bodies of requests, counted while they are read.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header::CONTENT_LENGTH, header::EXPECT};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use outrider_model::{Error, Reason};
use outrider_rpc::to_status;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::{Options, Shared, answer::Refusal};

/// Bytes of one permit of the room for bodies.
pub(crate) const ROOM_UNIT: usize = 1024;

/// Counts one request's bytes against its own limit and against the room that all share.
struct Meter {
    left: usize,
    limit: usize,
    room: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    /// Bytes for which permits are held but that did not come yet.
    paid: usize,
}

impl Meter {
    fn new(shared: &Shared) -> Self {
        let limit = shared.options.max_request_bytes;
        Self { left: limit, limit, room: Arc::clone(&shared.room), held: None, paid: 0 }
    }

    fn count(&mut self, bytes: usize) -> Result<(), Error> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| too_large(self.limit))?;
        if bytes > self.paid {
            let units = (bytes - self.paid).div_ceil(ROOM_UNIT);
            let permits = u32::try_from(units).ok().and_then(|units| Arc::clone(&self.room).try_acquire_many_owned(units).ok());
            let permits = permits.ok_or_else(|| Error::overloaded("too many requests are under way"))?;
            match &mut self.held {
                Some(held) => held.merge(permits),
                None => self.held = Some(permits),
            }
            self.paid += units * ROOM_UNIT;
        }
        self.paid -= bytes;
        Ok(())
    }
}

fn too_large(limit: usize) -> Error {
    Error::new(Reason::TooLarge, format!("the body is over {limit} bytes"))
}

/// A body in memory, and its place in the room until it is dropped.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// Reads a body to its end. One that is too large is refused, after its rest was read and dropped for a moment: a client that
/// writes all before it reads anything would else see a broken connection in the place of the answer.
pub(crate) async fn whole(shared: &Shared, headers: &HeaderMap, mut body: Incoming) -> Result<Whole, Refusal> {
    if announced(headers) > shared.options.max_request_bytes {
        // Who asks first has sent nothing yet.
        if !headers.contains_key(EXPECT) {
            linger(&shared.options, &mut body).await;
        }
        return Err(Refusal::closing(too_large(shared.options.max_request_bytes)));
    }
    let mut meter = Meter::new(shared);
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::closing(Error::new(Reason::MalformedRequest, "the body broke off")))?;
        let Ok(data) = frame.into_data() else { continue };
        if let Err(error) = meter.count(data.len()) {
            drop((read, meter));
            linger(&shared.options, &mut body).await;
            return Err(Refusal::closing(error));
        }
        read.extend_from_slice(&data);
    }
    Ok(Whole { bytes: read.freeze(), _room: meter.held })
}

/// The length that a request announces; 0 when it announces none.
fn announced(headers: &HeaderMap) -> usize {
    headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Reads and drops the rest of a body, for a moment.
pub(crate) async fn linger(options: &Options, body: &mut Incoming) {
    let drop_all = async {
        let mut left = options.linger_bytes;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    // Time is up: the answer goes out all the same.
    let _ = tokio::time::timeout(options.linger, drop_all).await;
}

/// A body on its way to a role, that ends with an error when it is too large.
pub(crate) struct Metered<B> {
    inner: B,
    meter: Meter,
    exceeded: Exceeded,
}

/// Tells the forwarder that the body was cut, since a channel would only report that the request broke.
#[derive(Clone, Default)]
pub(crate) struct Exceeded {
    flag: Arc<AtomicBool>,
}

impl Exceeded {
    pub(crate) fn is_set(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }
}

/// Refuses what is announced as too large; else counts the rest as it passes.
pub(crate) fn metered<B>(shared: &Shared, headers: &HeaderMap, inner: B) -> Result<(Metered<B>, Exceeded), Error> {
    if announced(headers) > shared.options.max_request_bytes {
        return Err(too_large(shared.options.max_request_bytes));
    }
    let exceeded = Exceeded::default();
    Ok((Metered { inner, meter: Meter::new(shared), exceeded: exceeded.clone() }, exceeded))
}

/// The error of a body that was cut.
pub(crate) fn cut(shared: &Shared) -> Error {
    too_large(shared.options.max_request_bytes)
}

impl<B: http_body::Body<Data = Bytes> + Unpin> http_body::Body for Metered<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => return Poll::Ready(Some(Err(Status::cancelled("the request broke off")))),
            None => return Poll::Ready(None),
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        Poll::Ready(Some(match self.meter.count(bytes) {
            Ok(()) => Ok(frame),
            Err(error) => {
                self.exceeded.flag.store(error.reason == Reason::TooLarge, Ordering::Release);
                Err(to_status(error))
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_meter_holds_room_for_what_came_and_gives_it_back() {
        let room = Arc::new(Semaphore::new(4));
        let mut meter = Meter { left: 10_000, limit: 10_000, room: Arc::clone(&room), held: None, paid: 0 };
        for _ in 0..2048 {
            meter.count(1).unwrap();
        }
        assert_eq!(room.available_permits(), 2);
        assert_eq!(meter.count(2049).unwrap_err().reason, Reason::Overloaded);
        assert_eq!(meter.count(10_001).unwrap_err().reason, Reason::TooLarge);
        drop(meter);
        assert_eq!(room.available_permits(), 4);
    }
}
