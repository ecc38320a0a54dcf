//! Request bodies, counted while they are read.

use std::{
    future::Future as _,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap,
    header::{CONTENT_LENGTH, EXPECT},
    request::Parts,
};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use outrider_model::{Error, Reason};
use outrider_rpc::{MessageFraming, bounds::Weight, to_status};
use outrider_shares::{Holder, Share};
use tokio::time::{Instant, Sleep, timeout_at};
use tonic::Status;

use crate::{
    Options,
    exchange::{Shared, answer::Refusal, deadline::Deadline},
};

/// The setting that limits a body, a line and a message. Refusals name it.
pub(crate) const LIMIT_KEY: &str = "gateway.max_request_bytes";

/// Bytes by which a body's share of the room grows at once, so that the share is not consulted for
/// each small piece.
const STEP: usize = 1024;

/// Counts the bytes of one request against its own limit and against its caller's share of the
/// room.
pub(crate) struct BodyMeter {
    left: usize,
    limit: usize,
    held: Share,
    /// Bytes for which room is held, but which have not arrived.
    paid: usize,
    /// Bytes of room held for what the role makes of the body.
    weighed: usize,
}

impl BodyMeter {
    pub(crate) fn new(shared: &Shared, holder: Holder) -> Self {
        Self::within(shared.options.max_request_bytes, shared.room.share(holder))
    }

    fn within(limit: usize, held: Share) -> Self {
        Self { left: limit, limit, held, paid: 0, weighed: 0 }
    }

    pub(crate) fn count(&mut self, bytes: usize) -> Result<(), Error> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| too_large(self.limit))?;
        if bytes > self.paid {
            let more = (bytes - self.paid).next_multiple_of(STEP);
            self.held.grow(more)?;
            self.paid += more;
        }
        self.paid -= bytes;
        Ok(())
    }

    /// Takes room for all announced bytes at once. If requests took room piece by piece, together
    /// they could exhaust a share, and none of them would finish.
    pub(crate) fn expect(&mut self, bytes: usize) -> Result<(), Error> {
        if bytes > self.left {
            return Err(too_large(self.limit));
        }
        if bytes > self.paid {
            let more = (bytes - self.paid).next_multiple_of(STEP);
            self.held.grow(more)?;
            self.paid += more;
        } else if self.paid - bytes >= STEP {
            // More was announced than arrives: the length of base64 text, which is already decoded
            // here.
            let less = (self.paid - bytes) / STEP * STEP;
            self.held.shrink(less);
            self.paid -= less;
        }
        Ok(())
    }

    /// Holds `memory` bytes of room in total for what is made of the body. They count against the
    /// room only, not against the limit.
    fn weigh(&mut self, memory: usize) -> Result<(), Error> {
        if memory > self.weighed {
            let more = (memory - self.weighed).next_multiple_of(STEP);
            self.held.grow(more)?;
            self.weighed += more;
        }
        Ok(())
    }

    /// Returns the room of all that was counted.
    pub(crate) fn give_back(&mut self) {
        (self.left, self.paid, self.weighed) = (self.limit, 0, 0);
        self.held.shrink(self.held.amount());
    }
}

fn too_large(limit: usize) -> Error {
    Error::new(
        Reason::TooLarge,
        format!("the body is over the limit of {limit} bytes ({LIMIT_KEY})"),
    )
}

/// How fast a body must arrive.
#[derive(Debug, Clone, Copy)]
struct Pace {
    begun: Instant,
    grace: Duration,
    /// Bytes per second. 0 means no limit.
    rate: usize,
    bytes: usize,
}

impl Pace {
    fn new(shared: &Shared) -> Self {
        Self {
            begun: Instant::now(),
            grace: shared.options.body_grace,
            rate: shared.options.min_body_rate,
            bytes: 0,
        }
    }

    /// Returns when the next byte must have arrived.
    fn due(&self) -> Instant {
        // Later than any request's own limit.
        const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
        let earned = match self.rate {
            0 => FAR,
            rate => Duration::from_millis((self.bytes as u64).saturating_mul(1000) / rate as u64),
        };
        self.begun + self.grace + earned.min(FAR)
    }

    fn too_slow(&self) -> Error {
        Error::new(
            Reason::TooSlow,
            format!("the body arrived at less than {} bytes per second", self.rate),
        )
    }
}

/// A body in memory, with its share of the room until it is dropped.
#[derive(Debug)]
pub(crate) struct BufferedBody {
    pub(crate) bytes: Bytes,
    /// The room that the body takes, from its caller's share.
    pub(crate) room: Share,
}

/// Reads a body to its end, within the room taken for its announced length. If a body is too large,
/// its rest is read and dropped for a moment before it is refused: a client that writes everything
/// before it reads would otherwise see a broken connection instead of the answer.
pub(crate) async fn read_whole(
    shared: &Shared,
    parts: &Parts,
    mut body: Incoming,
    deadline: &Deadline,
) -> Result<BufferedBody, Refusal> {
    let (headers, announced) = (&parts.headers, announced(&parts.headers));
    let holder = Holder::of_request(&parts.extensions);
    let (mut meter, mut pace) = (BodyMeter::new(shared, holder), Pace::new(shared));
    if let Err(error) = meter.expect(announced) {
        // A client that waits for `100 Continue` has sent nothing yet.
        if !headers.contains_key(EXPECT) {
            linger(&shared.options, &mut body).await;
        }
        return Err(Refusal::closing(error));
    }
    // If it grew step by step, it would take up to twice as much memory.
    let mut read = BytesMut::with_capacity(announced);
    loop {
        let (due, late) = match deadline.of_body() {
            Some(end) if end < pace.due() => (end, true),
            _ => (pace.due(), false),
        };
        let too_slow =
            |_| Refusal::closing(if late { deadline.body_too_slow() } else { pace.too_slow() });
        let Some(frame) = timeout_at(due, body.frame()).await.map_err(too_slow)? else { break };
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) if is_gone(&error) => gone().await,
            Err(_) => return Err(Refusal::closing(broke_off())),
        };
        let Ok(data) = frame.into_data() else { continue };
        pace.bytes += data.len();
        if let Err(error) = meter.count(data.len()) {
            drop((read, meter));
            linger(&shared.options, &mut body).await;
            return Err(Refusal::closing(error));
        }
        read.extend_from_slice(&data);
    }
    Ok(BufferedBody { bytes: read.freeze(), room: meter.held })
}

/// Why a body ended early.
#[derive(Debug, Clone)]
pub(crate) enum Broken {
    /// The client went away, or canceled the request.
    Gone,
    /// The gateway refuses the rest: the body is too large, too slow or malformed.
    Refused(Error),
}

/// The text of an error for which [`is_gone`] is true, where errors become text.
pub(crate) const GONE: &str = "the client went away";
/// The text of any other error.
pub(crate) const BROKE_OFF: &str = "the body broke off";

impl Broken {
    /// Classifies the error of a body, from hyper or from tonic-web in front of it.
    pub(crate) fn by(error: &(dyn std::error::Error + 'static)) -> Self {
        match error.downcast_ref::<Status>() {
            Some(status) if status.message().ends_with(GONE) => Self::Gone,
            Some(status) if status.message().ends_with(BROKE_OFF) => Self::Refused(broke_off()),
            Some(_) => {
                Self::Refused(Error::new(Reason::MalformedRequest, "the body is not valid base64"))
            }
            None if is_gone(error) => Self::Gone,
            None => Self::Refused(broke_off()),
        }
    }
}

/// Returns whether a body ended because the client reset the request or lost its HTTP/2 connection,
/// so that nobody reads the answer. An HTTP/1.1 client may end its side early and still read.
pub(crate) fn is_gone(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<h2::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Waits until hyper drops the request of a client that went away. The request then counts as
/// canceled.
pub(crate) async fn gone<T>() -> T {
    std::future::pending().await
}

pub(crate) fn broke_off() -> Error {
    Error::new(Reason::MalformedRequest, BROKE_OFF)
}

/// Returns the announced length of a request, or 0 if it announces none.
fn announced(headers: &HeaderMap) -> usize {
    headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
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
    // If the time is up, the answer is sent anyway.
    let _ = tokio::time::timeout(options.linger, drop_all).await;
}

/// A body on its way to a role. It ends with an error if it is too large or too slow.
pub(crate) struct MeteredBody<B> {
    inner: B,
    weight: Option<Weight>,
    place: MessageFraming,
    pace: Pace,
    /// Rings when the next byte is due. Set when a byte is first waited for.
    alarm: Option<Pin<Box<Sleep>>>,
    cut: Cut,
}

/// Says why the body was cut, since a channel would only report that the request broke. Holds the
/// request's room until it is dropped, because the role reads the whole body before it answers.
#[derive(Clone)]
pub(crate) struct Cut(Arc<(OnceLock<Broken>, Mutex<BodyMeter>)>);

impl Cut {
    pub(crate) fn why(&self) -> Option<Broken> {
        self.0.0.get().cloned()
    }

    fn because(&self, why: Broken) -> Status {
        match self.0.0.get_or_init(|| why).clone() {
            Broken::Gone => Status::cancelled(GONE),
            Broken::Refused(error) => to_status(error),
        }
    }

    fn meter(&self) -> MutexGuard<'_, BodyMeter> {
        self.0.1.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes room for the length that the head or the prefix of the message announces, or refuses the
/// body. The rest, and what the role makes of it, is counted as it passes.
pub(crate) fn metered<B>(
    shared: &Shared,
    path: &str,
    parts: &Parts,
    inner: B,
) -> Result<(MeteredBody<B>, Cut), Error> {
    let mut meter = BodyMeter::new(shared, Holder::of_request(&parts.extensions));
    meter.expect(announced(&parts.headers))?;
    let cut = Cut(Arc::new((OnceLock::new(), Mutex::new(meter))));
    let (weight, place, pace) = (Weight::of(path), MessageFraming::default(), Pace::new(shared));
    Ok((MeteredBody { inner, weight, place, pace, alarm: None, cut: cut.clone() }, cut))
}

impl<B> MeteredBody<B> {
    fn counted(&mut self, frame: &Frame<Bytes>) -> Result<(), Error> {
        let Some(data) = frame.data_ref() else { return Ok(()) };
        self.pace.bytes += data.len();
        self.place.pass(data);
        let mut meter = self.cut.meter();
        meter.count(data.len())?;
        meter.expect(self.place.remaining())?;
        match &mut self.weight {
            Some(weight) => meter.weigh(weight.push(data)?),
            None => Ok(()),
        }
    }

    /// Returns whether the body is too slow.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let due = self.pace.due();
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if alarm.deadline() != due {
            alarm.as_mut().reset(due);
        }
        alarm.as_mut().poll(cx).is_ready()
    }
}

impl<B> http_body::Body for MeteredBody<B>
where
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => {
                return Poll::Ready(Some(Err(self.cut.because(Broken::by(&*error.into())))));
            }
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending if self.is_late(cx) => {
                let late = Broken::Refused(self.pace.too_slow());
                return Poll::Ready(Some(Err(self.cut.because(late))));
            }
            Poll::Pending => return Poll::Pending,
        };
        Poll::Ready(Some(match self.counted(&frame) {
            Ok(()) => Ok(frame),
            Err(error) => Err(self.cut.because(Broken::Refused(error))),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    /// No hint: for gRPC-web in base64, the inner body knows the length of the text, and an HTTP
    /// client would announce that as the length of the message.
    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use outrider_shares::Shares;

    use super::*;

    fn meter(room: &Shares) -> BodyMeter {
        BodyMeter::within(1024 * 1024, room.share(Holder::of_request(&http::Extensions::new())))
    }

    #[test]
    fn what_is_announced_is_held_at_once_and_what_is_not_to_come_is_given_back() {
        let room = Shares::new(crate::exchange::shared::REQUEST_BYTES, 1024 * 1024);
        // A lone key may hold a quarter.
        let (mut first, mut second) = (meter(&room), meter(&room));
        first.expect(200_000).unwrap();
        let held = room.held();
        assert!((200_000..200_000 + STEP).contains(&held), "{held}");
        assert_eq!(second.expect(100_000).unwrap_err().reason, Reason::ShareExhausted);
        first.count(100_000).unwrap();
        first.expect(100_000).unwrap();
        assert_eq!(room.held(), held, "it was paid for");
        // What is made of the body takes room of its own.
        first.weigh(10_000).unwrap();
        first.count(100_000).unwrap();
        assert_eq!(room.held(), held + 10 * STEP);
        assert_eq!(first.expect(1024 * 1024).unwrap_err().reason, Reason::TooLarge);
        drop(first);
        second.expect(100_000).unwrap();
        second.count(10).unwrap();
        second.expect(30_000).unwrap();
        let held = room.held();
        assert!((30_010..30_010 + 2 * STEP).contains(&held), "{held}");
        second.give_back();
        assert_eq!(room.held(), 0);
    }

    #[test]
    fn the_meter_holds_room_for_what_came_and_gives_it_back() {
        let room = Shares::new(crate::exchange::shared::REQUEST_BYTES, 1024 * 1024);
        let mut meter = meter(&room);
        for _ in 0..2048 {
            meter.count(1).unwrap();
        }
        assert_eq!(room.held(), 2048);
        assert_eq!(meter.count(300 * 1024).unwrap_err().reason, Reason::ShareExhausted);
        assert_eq!(meter.count(1024 * 1024).unwrap_err().reason, Reason::TooLarge);
        drop(meter);
        assert_eq!(room.held(), 0);
    }
}
