//! The client's side of a stream on its way to a role. If the gateway ends it, it ends between two
//! messages, and each message must arrive in time.
//!
//! When the gateway shuts down, it ends the client's side after the current message. The role then
//! reports the outcome of everything that it received, and the client is told to connect again. If
//! the stream were cut in the middle, the client would have to send more of it twice. When the
//! answer ends, for whatever reason, the client's side ends too.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Response};
use http_body::Frame;
use outrider_model::{Error, Reason, text::span};
use outrider_rpc::{MessageFraming, to_status};
use outrider_shares::Holder;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Status, body::Body};

use crate::exchange::{
    Shared,
    body::{BodyMeter, Broken, GONE},
};

/// A longer message takes its part of the room for bodies. Up to this length, it fits into the
/// buffers that every connection has anyway.
const FREE_BYTES: usize = 16 * 1024;

/// The client's side of a stream.
pub(crate) struct ClientSide<B> {
    /// `None` once it has ended.
    inner: Option<B>,
    /// `None` once the gateway drains, or the answer has ended.
    until: Option<BoxFuture<'static, ()>>,
    place: MessageFraming,
    /// Room held for the current message.
    meter: BodyMeter,
    held: usize,
    delay: Delay,
    ended: StreamEnd,
}

/// What the two sides tell each other: why the gateway ended the client's side, and whether the
/// server's side has ended.
#[derive(Clone, Default)]
pub(crate) struct StreamEnd {
    why: Arc<OnceLock<Error>>,
    over: CancellationToken,
}

/// Wraps the client's side so that it ends when the gateway drains, or when a message is too large
/// or too slow.
pub(crate) fn watched<B>(shared: &Shared, holder: Holder, inner: B) -> (ClientSide<B>, StreamEnd) {
    let ended = StreamEnd::default();
    let (draining, over) = (shared.draining(), ended.over.clone());
    let side = ClientSide {
        inner: Some(inner),
        until: Some(Box::pin(async move {
            over.run_until_cancelled_owned(draining).await.unwrap_or_default()
        })),
        place: MessageFraming::default(),
        meter: BodyMeter::new(shared, holder),
        held: 0,
        delay: Delay::new(shared.options.request_timeout),
        ended: ended.clone(),
    };
    (side, ended)
}

impl<B> ClientSide<B> {
    /// Returns whether only the rest of the current message may pass.
    fn drains(&mut self, cx: &mut Context<'_>) -> bool {
        if self.until.as_mut().is_some_and(|until| until.as_mut().poll(cx).is_ready()) {
            self.until = None;
        }
        self.until.is_none()
    }

    /// Ends the client's side.
    fn end(&mut self, why: Error) -> Error {
        self.inner = None;
        self.ended.why.get_or_init(|| why).clone()
    }

    /// Counts bytes that pass. Room is held for an incomplete message as a whole, with the length
    /// that its prefix announces.
    fn pass(&mut self, data: &[u8]) -> Result<(), Error> {
        self.place.pass(data);
        let under_way = self.place.passed();
        // A message began within these bytes, or none is in progress.
        if under_way <= data.len() {
            self.meter.give_back();
            self.held = 0;
            self.delay.begin();
        }
        let awaited = self.place.remaining();
        if under_way > 0 && under_way + awaited > FREE_BYTES {
            self.meter.count(under_way - self.held)?;
            self.held = under_way;
            self.meter.expect(awaited)?;
        }
        Ok(())
    }
}

impl<B> http_body::Body for ClientSide<B>
where
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            let drains = this.drains(cx);
            if this.ended.over.is_cancelled() {
                this.inner = None;
                return Poll::Ready(Some(Err(Status::cancelled("the answer has ended"))));
            }
            let Some(inner) = this.inner.as_mut() else { return Poll::Ready(None) };
            if drains && this.place.is_between_messages() {
                this.end(Error::shutting_down());
                return Poll::Ready(None);
            }
            let frame = match Pin::new(inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(error))) => {
                    let status = match Broken::by(&*error.into()) {
                        Broken::Gone => Status::cancelled(GONE),
                        Broken::Refused(error) => to_status(this.end(error)),
                    };
                    return Poll::Ready(Some(Err(status)));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending if !this.place.is_between_messages() && this.delay.is_over(cx) => {
                    let error = this.end(this.delay.error());
                    return Poll::Ready(Some(Err(to_status(error))));
                }
                Poll::Pending => return Poll::Pending,
            };
            this.delay.end();
            let Ok(mut data) = frame.into_data() else { continue };
            let end = this.place.end_in(&data).filter(|end| drains && *end < data.len());
            data.truncate(end.unwrap_or(data.len()));
            let passed = this.pass(&data);
            if end.is_some() {
                this.end(Error::shutting_down());
            }
            return Poll::Ready(Some(
                passed.map(|()| Frame::data(data)).map_err(|error| to_status(this.end(error))),
            ));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(http_body::Body::is_end_stream)
    }
}

/// How long the gateway waits for the rest of a message. While the role takes nothing, no
/// time counts.
struct Delay {
    limit: Duration,
    /// Time spent on earlier frames of the message.
    waited: Duration,
    since: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Delay {
    fn new(limit: Duration) -> Self {
        Self { limit, waited: Duration::ZERO, since: None, alarm: None }
    }

    /// Starts with a new message.
    fn begin(&mut self) {
        self.waited = Duration::ZERO;
    }

    /// Records that something arrived. If nobody noticed the alarm, the role was not polling, and
    /// the data may have been there all the time.
    fn end(&mut self) {
        let waited =
            self.waited + self.since.take().map_or(Duration::ZERO, |since| since.elapsed());
        if waited < self.limit {
            self.waited = waited;
        }
    }

    /// Called when nothing is there. Returns whether that has lasted too long.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let since = *self.since.get_or_insert_with(Instant::now);
        let due = since + self.limit.saturating_sub(self.waited);
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if alarm.deadline() != due {
            alarm.as_mut().reset(due);
        }
        alarm.as_mut().poll(cx).is_ready()
    }

    fn error(&self) -> Error {
        Error::new(Reason::TooSlow, format!("a message did not arrive within {}", span(self.limit)))
    }
}

/// Wraps the server's side. If the gateway ended the stream, the client gets the gateway's reason.
pub(crate) fn with_reason(answer: Response<Body>, ended: StreamEnd) -> Response<Body> {
    // A channel breaks the call off before the role has answered.
    if let Some(why) = ended.why.get()
        && Status::from_header_map(answer.headers())
            .is_some_and(|status| status.code() == Code::Unavailable)
    {
        return to_status(why.clone()).into_http();
    }
    let over = ended.over.clone().drop_guard();
    answer.map(|inner| Body::new(ServerSide { inner, ended, done: false, _over: over }))
}

struct ServerSide {
    inner: Body,
    ended: StreamEnd,
    /// Whether the trailers were sent.
    done: bool,
    _over: DropGuard,
}

impl http_body::Body for ServerSide {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let good = |frame: &Frame<Bytes>| {
            frame
                .trailers_ref()
                .and_then(Status::from_header_map)
                .is_some_and(|status| status.code() == Code::Ok)
        };
        let ours = match &frame {
            Some(Ok(frame)) => good(frame),
            // A channel breaks the call off if the client's side ends in the middle of a message.
            Some(Err(_)) | None => true,
        };
        let Some(why) = self.ended.why.get().filter(|_| ours).cloned() else {
            return Poll::Ready(frame);
        };
        self.done = true;
        let mut trailers = HeaderMap::new();
        let told = to_status(why).add_header(&mut trailers);
        Poll::Ready(Some(told.map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.done || self.inner.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_what_is_waited_for_counts() {
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        let second = Duration::from_secs(1);
        let mut delay = Delay::new(10 * second);
        for _ in 0..3 {
            assert!(!delay.is_over(&mut cx));
            tokio::time::advance(3 * second).await;
            delay.end();
        }
        assert!(!delay.is_over(&mut cx));
        // For a while, the role takes nothing and does not poll.
        tokio::time::advance(60 * second).await;
        delay.end();
        assert!(!delay.is_over(&mut cx));
        tokio::time::advance(second).await;
        assert!(delay.is_over(&mut cx), "in all it took ten seconds");
    }
}
