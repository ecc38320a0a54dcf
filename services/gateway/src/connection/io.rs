//! Watches the bytes of a connection. It cuts a head that is sent too slowly, an idle connection, a
//! client that gives up request after request, and a request whose framing could be read in two
//! ways.
//!
//! hyper's own timeout for heads also runs while a connection waits for its next request, and does
//! not run before the HTTP version is known. It is therefore off, and this module replaces it.

use std::{
    io,
    mem::MaybeUninit,
    pin::{Pin, pin},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::{Instant, Sleep},
};

use crate::connection::{
    framing::Framing,
    head::{Fault, Limits},
};

/// The requests of a connection, counted by its handler.
#[derive(Debug)]
pub(crate) struct Progress {
    opened: Instant,
    begun: AtomicU64,
    ended: AtomicU64,
    /// Requests that ended without an answer because the client gave up.
    abandoned: AtomicU64,
    /// When the last request ended, in milliseconds after the connection was opened.
    last_end_ms: AtomicU64,
    /// Requests whose answer is not completely sent.
    open: Arc<AtomicU64>,
    /// When the last answer was completely sent, in milliseconds after the connection was opened.
    last_sent_ms: AtomicU64,
    arrived: Notify,
    /// The number of the request that replaces a refused one, and the reason of the refusal.
    refused: OnceLock<(u64, Fault)>,
}

impl Progress {
    /// Counts the open requests in `open`.
    pub(crate) fn new(open: Arc<AtomicU64>) -> Self {
        let [begun, ended, abandoned, last_end_ms, last_sent_ms] = [const { AtomicU64::new(0) }; 5];
        let (opened, arrived, refused) = (Instant::now(), Notify::new(), OnceLock::new());
        Self { opened, begun, ended, abandoned, last_end_ms, open, last_sent_ms, arrived, refused }
    }

    /// Begins a request whose head is complete. Returns a guard that ends when the request is
    /// answered, one that ends when the answer is sent, and the reason if the request must be
    /// refused.
    pub(crate) fn begin(self: &Arc<Self>) -> (RequestGuard, AnswerGuard, Option<Fault>) {
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        self.open.fetch_add(1, Ordering::Relaxed);
        self.arrived.notify_waiters();
        // HTTP/1.1 requests arrive one after the other.
        let fault =
            self.refused.get().filter(|(refused, _)| *refused == number).map(|(_, fault)| *fault);
        (
            RequestGuard { progress: Arc::clone(self), answered: false },
            AnswerGuard(Arc::clone(self)),
            fault,
        )
    }

    /// Returns whether a request is in flight, including the sending of its answer.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire) > 0
    }

    fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    fn is_busy(&self) -> bool {
        self.begun() > self.ended.load(Ordering::Acquire)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A request in flight has its own deadline: the connection counts as idle only from its end.
    fn last_work(&self) -> Instant {
        if self.is_busy() {
            Instant::now()
        } else {
            self.opened + Duration::from_millis(self.last_end_ms.load(Ordering::Relaxed))
        }
    }

    /// Returns whether the client gave up more requests than were answered, by more than `limit`.
    fn is_flood(&self, limit: u64) -> bool {
        let abandoned = self.abandoned.load(Ordering::Relaxed);
        let answered = self.ended.load(Ordering::Relaxed).saturating_sub(abandoned);
        abandoned > answered.saturating_add(limit)
    }

    /// Resolves when a request is in flight, or after `longest`.
    pub(crate) async fn next_request(&self, longest: Duration) {
        let mut arrived = pin!(self.arrived.notified());
        // From here on, no arrival is missed.
        arrived.as_mut().enable();
        if !self.is_open() {
            // Both outcomes are treated the same.
            let _ = tokio::time::timeout(longest, arrived).await;
        }
    }

    /// Resolves when the connection has had no request for `length`. Pings do not count.
    pub(crate) async fn rested(&self, length: Duration) {
        loop {
            let now = Instant::now();
            let since = if self.is_open() {
                now
            } else {
                self.opened + Duration::from_millis(self.last_sent_ms.load(Ordering::Relaxed))
            };
            if since + length <= now {
                return;
            }
            tokio::time::sleep_until(since + length).await;
        }
    }
}

/// Ends a request when it is dropped.
pub(crate) struct RequestGuard {
    progress: Arc<Progress>,
    answered: bool,
}

impl RequestGuard {
    /// Marks the request as answered. A request that ends without this was given up by the client.
    pub(crate) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let progress = &self.progress;
        if !self.answered {
            progress.abandoned.fetch_add(1, Ordering::Relaxed);
        }
        progress.last_end_ms.fetch_max(progress.now_ms(), Ordering::Relaxed);
        progress.ended.fetch_add(1, Ordering::Release);
    }
}

/// Marks an answer as completely sent when it is dropped.
pub(crate) struct AnswerGuard(Arc<Progress>);

impl Drop for AnswerGuard {
    fn drop(&mut self) {
        self.0.last_sent_ms.fetch_max(self.0.now_ms(), Ordering::Relaxed);
        self.0.open.fetch_sub(1, Ordering::Release);
    }
}

/// The bytes with which an HTTP/2 client begins.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// hyper gets this request in place of a head at fault. The handler refuses it with the reason.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: -\r\nconnection: close\r\n\r\n";
/// hyper gets this in place of a line at fault between chunks, and ends the body with an error.
const NO_LINE: &[u8] = b"\0\r\n\r\n";
/// Reads into smaller buffers go through a buffer here. hyper first reads 24 bytes, to detect the
/// HTTP version.
const LEAST_READ: usize = 1024;
const OWN_READ: usize = 8 * 1024;
/// Bytes that are read and dropped after a fault.
const MAX_DROPPED: usize = 256 * 1024;

/// The limits of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Size of a head.
    pub(crate) limits: Limits,
    /// Time for a head.
    pub(crate) head_timeout: Duration,
    /// Time without a byte.
    pub(crate) idle_timeout: Duration,
    /// Number of requests that the client may give up, beyond those that were answered.
    pub(crate) max_abandoned: u64,
}

/// A byte stream with these checks.
pub(crate) struct WatchedStream<T> {
    inner: T,
    progress: Arc<Progress>,
    bounds: Bounds,
    framing: Framing,
    /// Bytes that wait for the end of their head or line.
    held: Vec<u8>,
    /// Bytes that hyper must get before those that are read next.
    ahead: Bytes,
    /// Whether a fault was found. Further bytes are read only to be dropped.
    refused: bool,
    dropped: usize,
    /// When the current head began, and how many requests had begun by then.
    head: Option<(Instant, u64)>,
    /// Number of bytes so far that match the preface. `None` after a mismatch.
    preface: Option<usize>,
    last_bytes: Instant,
    alarm: Pin<Box<Sleep>>,
}

impl<T> WatchedStream<T> {
    pub(crate) fn new(inner: T, progress: Arc<Progress>, bounds: Bounds) -> Self {
        let now = Instant::now();
        let alarm =
            Box::pin(tokio::time::sleep_until(now + bounds.head_timeout.min(bounds.idle_timeout)));
        let (framing, head, preface) = (Framing::new(bounds.limits), Some((now, 0)), Some(0));
        let (held, ahead, refused, dropped) = (Vec::new(), Bytes::new(), false, 0);
        Self {
            inner,
            progress,
            bounds,
            framing,
            held,
            ahead,
            refused,
            dropped,
            head,
            preface,
            last_bytes: now,
            alarm,
        }
    }

    /// Hands out bytes that come before those that are read next. Returns whether there were any.
    fn give(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let now = self.ahead.split_to(self.ahead.len().min(buffer.remaining()));
        buffer.put_slice(&now);
        !now.is_empty()
    }

    /// Checks the new bytes in the buffer, from `before` on. Nothing is held back yet. Holds back
    /// bytes that must not pass yet.
    fn judge_in_place(&mut self, buffer: &mut ReadBuf<'_>, before: usize) {
        let bytes = &buffer.filled()[before..];
        if self.begins_like_http2() {
            self.held.extend_from_slice(bytes);
            return buffer.set_filled(before);
        }
        let judged = self.framing.advance(bytes);
        self.held.extend_from_slice(&bytes[judged.passed..]);
        buffer.set_filled(before + judged.passed);
        self.refuse(judged.fault);
    }

    /// Checks new bytes that follow the bytes held back.
    fn judge_apart(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        if self.is_http2() {
            self.ahead = std::mem::take(&mut self.held).into();
            return;
        }
        if self.begins_like_http2() {
            return;
        }
        let judged = self.framing.advance(&self.held);
        if judged.passed > 0 {
            let rest = self.held.split_off(judged.passed);
            self.ahead = std::mem::replace(&mut self.held, rest).into();
        }
        self.refuse(judged.fault);
    }

    /// Passes on bytes that make hyper or the handler refuse the request.
    fn refuse(&mut self, fault: Option<Fault>) {
        let Some(fault) = fault else { return };
        let instead = if self.framing.is_in_head() {
            self.progress.refused.get_or_init(|| (self.framing.heads() + 1, fault));
            STAND_IN
        } else {
            NO_LINE
        };
        self.held = Vec::new();
        self.ahead = [&self.ahead, instead].concat().into();
        self.refused = true;
    }

    /// Whether all bytes so far match the preface, which is not complete.
    fn begins_like_http2(&self) -> bool {
        self.preface.is_some_and(|agreed| agreed < PREFACE.len())
    }

    fn is_http2(&self) -> bool {
        self.preface == Some(PREFACE.len())
    }

    fn on_read(&mut self, bytes: &[u8]) {
        if let Some(agreed) = self.preface.filter(|agreed| *agreed < PREFACE.len()) {
            let more = bytes.len().min(PREFACE.len() - agreed);
            self.preface =
                (bytes[..more] == PREFACE[agreed..agreed + more]).then_some(agreed + more);
        }
        self.last_bytes = Instant::now();
        self.forget_complete_head();
        if self.head.is_none() && !self.is_http2() && !self.progress.is_busy() {
            self.head = Some((self.last_bytes, self.progress.begun()));
        }
    }

    /// In HTTP/2, heads are frames among others. Pings and streams have their own limits.
    fn forget_complete_head(&mut self) {
        if self.is_http2() || self.head.is_some_and(|(_, begun)| self.progress.begun() > begun) {
            self.head = None;
        }
    }

    /// Fails if a deadline has passed; otherwise sets the alarm for the next one.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.forget_complete_head();
        loop {
            let idle = self.last_bytes.max(self.progress.last_work()) + self.bounds.idle_timeout;
            let deadline =
                self.head.map_or(idle, |(since, _)| idle.min(since + self.bounds.head_timeout));
            if deadline <= Instant::now() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if self.alarm.deadline() > deadline || self.alarm.is_elapsed() {
                self.alarm.as_mut().reset(deadline);
            }
            // If the alarm rings too early, the deadline is checked again. Resetting the alarm at
            // every byte would cost more.
            if self.alarm.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
        }
    }

    fn watched<R>(
        &mut self,
        cx: &mut Context<'_>,
        poll: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        match poll {
            Poll::Pending => match self.check(cx) {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            },
            ready => {
                self.last_bytes = Instant::now();
                ready
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for WatchedStream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.give(buffer) || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if this.refused {
                // hyper closes the connection once the answer is written. At the end of the input
                // it would close at once.
                this.drop_rest(cx);
                return this.watched(cx, Poll::Pending);
            }
            let before = buffer.filled().len();
            let apart =
                !this.is_http2() && (!this.held.is_empty() || buffer.remaining() < LEAST_READ);
            let polled = if apart { this.read_apart(cx) } else { this.read_in_place(cx, buffer) };
            let Poll::Ready(Ok(came)) = polled else {
                return this.watched(cx, polled.map_ok(drop));
            };
            if this.progress.is_flood(this.bounds.max_abandoned) {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            if came == 0 || buffer.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<T: AsyncRead + Unpin> WatchedStream<T> {
    /// Reads into hyper's buffer. Returns the number of new bytes.
    fn read_in_place(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        let came = buffer.filled().len() - before;
        self.on_read(&buffer.filled()[before..]);
        if came > 0 && !self.is_http2() {
            self.judge_in_place(buffer, before);
        }
        Poll::Ready(Ok(came))
    }

    /// Reads and drops bytes that follow a fault: closing a socket with unread bytes may destroy
    /// the answer on its way.
    fn drop_rest(&mut self, cx: &mut Context<'_>) {
        let mut own = [MaybeUninit::uninit(); OWN_READ];
        while self.dropped < MAX_DROPPED {
            let mut own = ReadBuf::uninit(&mut own);
            match Pin::new(&mut self.inner).poll_read(cx, &mut own) {
                Poll::Ready(Ok(())) if !own.filled().is_empty() => {
                    self.dropped += own.filled().len()
                }
                _ => return,
            }
        }
    }

    /// Reads bytes that hyper gets later, once their head is complete.
    fn read_apart(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut own = [MaybeUninit::uninit(); OWN_READ];
        let mut own = ReadBuf::uninit(&mut own);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut own))?;
        self.on_read(own.filled());
        if !own.filled().is_empty() {
            self.judge_apart(own.filled());
        }
        Poll::Ready(Ok(own.filled().len()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for WatchedStream<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watched(cx, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.watched(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
