//! A connection's bytes under watch: a head that is sent too slowly and a connection that stands still are cut.
//!
//! hyper's own timeout for heads also runs while a connection waits for its next request, and does not run before it knows the
//! version of HTTP; so it is off, and this is in its place.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// The requests of a connection, counted by its handler.
#[derive(Debug)]
pub(crate) struct Progress {
    opened: Instant,
    begun: AtomicU64,
    ended: AtomicU64,
    /// When the last one ended, in milliseconds after the connection was opened.
    last_end_ms: AtomicU64,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { opened: Instant::now(), begun: AtomicU64::new(0), ended: AtomicU64::new(0), last_end_ms: AtomicU64::new(0) }
    }

    /// A request's head is complete.
    pub(crate) fn begin(self: &Arc<Self>) -> Ending {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Ending(Arc::clone(self))
    }

    fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    fn is_busy(&self) -> bool {
        self.begun() > self.ended.load(Ordering::Acquire)
    }

    /// A request under way has a deadline of its own: the connection stands still from its end only.
    fn last_work(&self) -> Instant {
        if self.is_busy() {
            Instant::now()
        } else {
            self.opened + Duration::from_millis(self.last_end_ms.load(Ordering::Relaxed))
        }
    }
}

/// Ends a request when it is dropped.
pub(crate) struct Ending(Arc<Progress>);

impl Drop for Ending {
    fn drop(&mut self) {
        let end = u64::try_from(self.0.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last_end_ms.fetch_max(end, Ordering::Relaxed);
        self.0.ended.fetch_add(1, Ordering::Release);
    }
}

/// The bytes by which an HTTP/2 client begins.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream under watch.
pub(crate) struct Watched<T> {
    inner: T,
    progress: Arc<Progress>,
    head_timeout: Duration,
    idle_timeout: Duration,
    /// When the head under way began, and how many requests had begun by then.
    head: Option<(Instant, u64)>,
    /// Bytes that agree with the preface so far; none once one did not.
    preface: Option<usize>,
    last_bytes: Instant,
    alarm: Pin<Box<Sleep>>,
}

impl<T> Watched<T> {
    pub(crate) fn new(inner: T, progress: Arc<Progress>, head_timeout: Duration, idle_timeout: Duration) -> Self {
        let now = Instant::now();
        let alarm = Box::pin(tokio::time::sleep_until(now + head_timeout.min(idle_timeout)));
        Self { inner, progress, head_timeout, idle_timeout, head: Some((now, 0)), preface: Some(0), last_bytes: now, alarm }
    }

    fn is_http2(&self) -> bool {
        self.preface == Some(PREFACE.len())
    }

    fn on_read(&mut self, bytes: &[u8]) {
        if let Some(agreed) = self.preface.filter(|agreed| *agreed < PREFACE.len()) {
            let more = bytes.len().min(PREFACE.len() - agreed);
            self.preface = (bytes[..more] == PREFACE[agreed..agreed + more]).then_some(agreed + more);
        }
        self.last_bytes = Instant::now();
        self.forget_complete_head();
        if self.head.is_none() && !self.is_http2() && !self.progress.is_busy() {
            self.head = Some((self.last_bytes, self.progress.begun()));
        }
    }

    /// In HTTP/2 heads are frames among others: pings and streams have their own bounds.
    fn forget_complete_head(&mut self) {
        if self.is_http2() || self.head.is_some_and(|(_, begun)| self.progress.begun() > begun) {
            self.head = None;
        }
    }

    /// Fails when a deadline passed; else arms the alarm for the next one.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.forget_complete_head();
        loop {
            let idle = self.last_bytes.max(self.progress.last_work()) + self.idle_timeout;
            let deadline = self.head.map_or(idle, |(since, _)| idle.min(since + self.head_timeout));
            if deadline <= Instant::now() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if self.alarm.deadline() > deadline || self.alarm.is_elapsed() {
                self.alarm.as_mut().reset(deadline);
            }
            // An alarm that is too early only looks again: resetting it at every byte would cost more.
            if self.alarm.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
        }
    }

    fn watched<R>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
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

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.inner).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) => {
                self.on_read(&buffer.filled()[before..]);
                Poll::Ready(Ok(()))
            }
            other => self.watched(cx, other),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
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
