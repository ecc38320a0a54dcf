//! Copies bytes in both directions, until both ends are done or nothing moves.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use outrider_telemetry::{catalog::egress::BYTES, metrics::ByIndex};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional},
    sync::Notify,
    time::{Instant, sleep_until},
};

/// Counted while they move, because a tunnel that is kept alive may last for days.
static BYTES_BY_DIRECTION: LazyLock<ByIndex> =
    LazyLock::new(|| ByIndex::new(&BYTES, &["out", "in"]));

/// The reason why a tunnel ended, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Closed,
    Broken,
    Idle,
}

impl End {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Broken => "broken",
            Self::Idle => "idle",
        }
    }
}

/// How long a tunnel may be idle.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) idle: Duration,
    /// How long if no response is awaited: the proxy is closing and the outside spoke last, or the
    /// client has ended its side.
    pub(crate) kept: Duration,
}

/// A summary of a tunnel, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) end: End,
    pub(crate) bytes_out: u64,
    pub(crate) bytes_in: u64,
}

/// Copies until both directions are closed, one breaks, or nothing has moved for longer than
/// `patience`. The end of one direction is passed on and leaves the other open. A client that has
/// ended its side is usually gone, so an outside that sends nothing more is not waited for.
pub(crate) async fn run<C, O>(
    mut client: C,
    outside: O,
    patience: Patience,
    closing: impl Future<Output = ()>,
) -> Summary
where
    C: AsyncRead + AsyncWrite + Unpin,
    O: AsyncRead + AsyncWrite + Unpin,
{
    let meter = Arc::new(Meter {
        started: Instant::now(),
        last: AtomicU64::new(0),
        answered: AtomicBool::new(false),
        out: AtomicU64::new(0),
        into: AtomicU64::new(0),
        client_ended: Notify::new(),
    });
    // Every byte passes the outer side, so it is enough to watch that one.
    let mut outside = Metered { inner: outside, meter: Arc::clone(&meter), deaf: false };
    let end = tokio::select! {
        copied = copy_bidirectional(&mut client,
            &mut outside) => if copied.is_ok() { End::Closed } else { End::Broken },
        () = meter.idle(patience.idle, || true) => End::Idle,
        () = async {
            closing.await;
            meter.idle(patience.kept, || meter.answered.load(Ordering::Relaxed)).await;
        } => End::Idle,
        () = async {
            meter.client_ended.notified().await;
            meter.idle(patience.kept, || true).await;
        } => End::Idle,
    };
    Summary {
        end,
        bytes_out: meter.out.load(Ordering::Relaxed),
        bytes_in: meter.into.load(Ordering::Relaxed),
    }
}

struct Meter {
    started: Instant,
    /// Time of the last byte, in milliseconds since the start.
    last: AtomicU64,
    /// Whether the outside spoke last.
    answered: AtomicBool,
    out: AtomicU64,
    into: AtomicU64,
    /// Notified when the end of the client's side is passed on, or when the outside accepts no
    /// more.
    client_ended: Notify,
}

impl Meter {
    fn count(&self, counter: &AtomicU64, bytes: usize, answered: bool) {
        if bytes > 0 {
            self.answered.store(answered, Ordering::Relaxed);
            counter.fetch_add(bytes as u64, Ordering::Relaxed);
            BYTES_BY_DIRECTION.add(usize::from(answered), bytes as u64);
            self.last.store(
                u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
                Ordering::Relaxed,
            );
        }
    }

    /// Resolves when no byte has moved for this long and `counts` returns true.
    async fn idle(&self, length: Duration, counts: impl Fn() -> bool) {
        loop {
            let last = self.last.load(Ordering::Relaxed);
            let due = self.started + Duration::from_millis(last) + length;
            // Idle time that does not count yet is checked again.
            sleep_until(if due > Instant::now() { due } else { Instant::now() + length }).await;
            if self.last.load(Ordering::Relaxed) == last && counts() {
                return;
            }
        }
    }
}

struct Metered<S> {
    inner: S,
    meter: Arc<Meter>,
    /// A write failed.
    deaf: bool,
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        self.meter.count(&self.meter.into, buffer.filled().len() - before, true);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.deaf {
            return Poll::Ready(Ok(bytes.len()));
        }
        match Pin::new(&mut self.inner).poll_write(cx, bytes) {
            Poll::Ready(Ok(written)) => {
                self.meter.count(&self.meter.out, written, false);
                Poll::Ready(Ok(written))
            }
            // An endpoint may answer and close before it has read everything. Its response may have
            // arrived with the reset, and must reach the client. Reading then determines how the
            // tunnel ends.
            Poll::Ready(Err(_)) => {
                self.deaf = true;
                self.meter.client_ended.notify_one();
                Poll::Ready(Ok(bytes.len()))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.meter.client_ended.notify_one();
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const IDLE: Duration = Duration::from_secs(60);
    const PATIENCE: Patience = Patience { idle: IDLE, kept: Duration::from_secs(1) };

    #[tokio::test(start_paused = true)]
    async fn half_closed_tunnels_carry_the_other_half() {
        let ((mut client, near), (far, mut server)) = (duplex(64), duplex(64));
        let tunnel = tokio::spawn(run(near, far, PATIENCE, pending()));
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut text = String::new();
        server.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "question");
        server.write_all(b"an answer").await.unwrap();
        drop(server);
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "an answer");
        assert_eq!(tunnel.await.unwrap(), Summary { end: End::Closed, bytes_out: 8, bytes_in: 9 });
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_passes_although_the_outside_takes_no_more() {
        for chunk in [1, 64] {
            let ((mut client, near), (far, mut server)) = (duplex(chunk), duplex(64));
            server.write_all(b"an early answer").await.unwrap();
            drop(server);
            let tunnel = tokio::spawn(run(near, far, PATIENCE, pending()));
            let (mut reader, mut writer) = tokio::io::split(&mut client);
            let mut text = String::new();
            let (_, read) =
                tokio::join!(writer.write_all(&[b'q'; 1000]), reader.read_to_string(&mut text));
            read.unwrap();
            assert_eq!(text, "an early answer");
            drop(client);
            assert_eq!(tunnel.await.unwrap().bytes_in, 15);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_outside_that_hangs_is_left_soon_after_the_client() {
        let ((mut client, near), (far, mut server)) = (duplex(64), duplex(64));
        let started = Instant::now();
        let tunnel = tokio::spawn(run(near, far, PATIENCE, pending()));
        client.write_u8(1).await.unwrap();
        server.read_u8().await.unwrap();
        tokio::time::sleep(IDLE / 2).await;
        drop(client);
        assert_eq!(tunnel.await.unwrap(), Summary { end: End::Idle, bytes_out: 1, bytes_in: 0 });
        assert!(started.elapsed() < IDLE / 2 + PATIENCE.kept * 3, "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn idle_tunnels_end_and_busy_ones_do_not() {
        let ((mut client, near), (far, mut server)) = (duplex(64), duplex(64));
        let started = Instant::now();
        let tunnel = tokio::spawn(run(near, far, PATIENCE, pending()));
        for _ in 0..3 {
            tokio::time::advance(IDLE / 2).await;
            client.write_u8(1).await.unwrap();
            server.read_u8().await.unwrap();
        }
        assert_eq!(tunnel.await.unwrap(), Summary { end: End::Idle, bytes_out: 3, bytes_in: 0 });
        assert!(started.elapsed() >= IDLE / 2 * 5, "{:?}", started.elapsed());
        assert!(started.elapsed() < IDLE * 3, "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_end_only_tunnels_that_await_no_answer_are_closed() {
        let ((mut client, near), (far, mut server)) = (duplex(64), duplex(64));
        let started = Instant::now();
        let tunnel = tokio::spawn(run(near, far, PATIENCE, async {}));
        client.write_u8(1).await.unwrap();
        server.read_u8().await.unwrap();
        // A slow endpoint is thinking.
        tokio::time::sleep(IDLE / 2).await;
        assert!(!tunnel.is_finished());
        server.write_u8(2).await.unwrap();
        client.read_u8().await.unwrap();
        assert_eq!(tunnel.await.unwrap(), Summary { end: End::Idle, bytes_out: 1, bytes_in: 1 });
        assert!(started.elapsed() < IDLE / 2 + PATIENCE.kept * 4, "{:?}", started.elapsed());
    }
}
