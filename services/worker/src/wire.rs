//! The connection to an endpoint, with the bounds that the HTTP and TLS libraries do not have.
//!
//! [`Metered`] lies below TLS: it counts the bytes and reads of each exchange, so that nothing that
//! an endpoint can send (TLS records without content, session tickets, chunks of one byte, chunk
//! extensions, trailers) costs more than a bounded time. [`crate::heads::Heads`] lies above TLS,
//! and reads the heads of answers before hyper does.

use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use crate::{bounds::WireBounds, head::Fields, measure};

/// Why an exchange was given up: what the endpoint sent is beyond the bounds, or no HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fault {
    /// More interim answers than are read.
    Interim = 1,
    /// Interim answers, empty lines and the head are too large together.
    Head,
    /// The protocol was switched without being asked.
    Switched,
    /// More bytes than are read.
    Bytes,
    /// More reads than are made.
    Reads,
    /// No answer of HTTP/1.
    NotHttp,
}

impl Fault {
    const ALL: [Self; 6] =
        [Self::Interim, Self::Head, Self::Switched, Self::Bytes, Self::Reads, Self::NotHttp];

    /// In words for the owner of the endpoint.
    pub(crate) fn explain(self, bounds: &WireBounds) -> String {
        match self {
            Self::Interim => format!("more than {} interim answers", bounds.interim_answers),
            Self::Head => "the head of the answer is too large".to_owned(),
            Self::Switched => "the endpoint switched protocols, which was not asked for".to_owned(),
            Self::Bytes => format!("more than {} bytes on the wire for one exchange", bounds.bytes),
            Self::Reads => {
                format!("more than {} pieces on the wire for one exchange", bounds.reads)
            }
            Self::NotHttp => "the answer is not HTTP/1.1".to_owned(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an exchange with an endpoint was given up: ")?;
        f.write_str(match self {
            Self::Interim => "too many interim answers",
            Self::Head => "too large a head",
            Self::Switched => "another protocol",
            Self::Bytes => "too many bytes",
            Self::Reads => "too many pieces",
            Self::NotHttp => "no HTTP",
        })
    }
}

impl std::error::Error for Fault {}

/// What the owner of a connection and its streams share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The number of the exchange: each begins with fresh counts.
    exchange: AtomicU32,
    /// The number of the first fault; 0 for none.
    fault: AtomicU8,
    /// A write failed.
    deaf: AtomicBool,
    /// The last write waits: the other side takes nothing.
    stuck: AtomicBool,
    /// Something has come in the exchange, above TLS.
    heard: AtomicBool,
    /// The status of the exchange's answer; 0 until its line has come.
    status: AtomicU16,
    /// What is kept of a head that the HTTP library did not get as it was.
    fields: Mutex<Option<Fields>>,
    /// When the connection ended.
    ended: OnceLock<Instant>,
}

impl Watch {
    /// The next exchange begins.
    pub(crate) fn begin(&self) {
        self.0.heard.store(false, Ordering::Relaxed);
        self.0.status.store(0, Ordering::Relaxed);
        self.0.exchange.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether all that was written was taken: only then the connection is of further use.
    pub(crate) fn is_intact(&self) -> bool {
        !self.0.deaf.load(Ordering::Relaxed)
    }

    /// Whether something that is to be written is not taken.
    pub(crate) fn is_stuck(&self) -> bool {
        self.0.stuck.load(Ordering::Relaxed)
    }

    /// Why reading was given up, if it was.
    pub(crate) fn fault(&self) -> Option<Fault> {
        let number = self.0.fault.load(Ordering::Relaxed);
        Fault::ALL.into_iter().find(|fault| *fault as u8 == number)
    }

    /// A part of an answer has come.
    pub(crate) fn has_heard(&self) {
        self.0.heard.store(true, Ordering::Relaxed);
    }

    /// Whether a part of an answer has come.
    pub(crate) fn heard(&self) -> bool {
        self.0.heard.load(Ordering::Relaxed)
    }

    /// The status line of the answer has come.
    pub(crate) fn has_status(&self, status: u16) {
        self.0.status.store(status, Ordering::Relaxed);
    }

    /// The status of the answer, once its line has come.
    pub(crate) fn status(&self) -> Option<u16> {
        Some(self.0.status.load(Ordering::Relaxed)).filter(|status| *status != 0)
    }

    /// The head of the answer was rewritten; this is kept of it.
    pub(crate) fn has_fields(&self, fields: Fields) {
        *self.0.fields.lock().unwrap_or_else(PoisonError::into_inner) = Some(fields);
    }

    /// What is kept of a head that was rewritten.
    pub(crate) fn take_fields(&self) -> Option<Fields> {
        self.0.fields.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The connection has ended.
    pub(crate) fn end(&self) {
        let _ = self.0.ended.set(Instant::now());
    }

    /// When the connection ended, if it did.
    pub(crate) fn ended(&self) -> Option<Instant> {
        self.0.ended.get().copied()
    }

    /// The number of the exchange under way.
    pub(crate) fn exchange(&self) -> u32 {
        self.0.exchange.load(Ordering::Relaxed)
    }

    /// Notes the first fault, and fails.
    pub(crate) fn fail<T>(&self, fault: Fault) -> Poll<io::Result<T>> {
        if self
            .0
            .fault
            .compare_exchange(0, fault as u8, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
        {
            measure::exceeded(fault);
        }
        Poll::Ready(Err(io::Error::other(fault)))
    }
}

/// Counts what is read in each exchange. What comes between two exchanges counts to the former.
pub(crate) struct Metered<S> {
    inner: S,
    watch: Watch,
    bounds: WireBounds,
    exchange: u32,
    bytes: usize,
    reads: usize,
}

impl<S> Metered<S> {
    pub(crate) fn new(inner: S, watch: Watch, bounds: WireBounds) -> Self {
        Self { inner, watch, bounds, exchange: 0, bytes: 0, reads: 0 }
    }

    /// Counts a read, and says what it exceeds.
    fn count(&mut self, read: usize) -> Option<Fault> {
        let exchange = self.watch.exchange();
        if exchange != self.exchange {
            (self.exchange, self.bytes, self.reads) = (exchange, 0, 0);
        }
        self.bytes = self.bytes.saturating_add(read);
        self.reads += 1;
        if self.bytes > self.bounds.bytes {
            Some(Fault::Bytes)
        } else {
            (self.reads > self.bounds.reads).then_some(Fault::Reads)
        }
    }
}

impl<S> Metered<S> {
    /// What a write that may have failed is taken for.
    fn taken<T>(&self, written: Poll<io::Result<T>>, whole: T) -> Poll<io::Result<T>> {
        self.watch.0.stuck.store(written.is_pending(), Ordering::Relaxed);
        match written {
            Poll::Ready(Err(_)) => {
                self.watch.0.deaf.store(true, Ordering::Relaxed);
                Poll::Ready(Ok(whole))
            }
            other => other,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        match self.count(buffer.filled().len() - before) {
            Some(fault) => self.watch.fail(fault),
            None => Poll::Ready(Ok(())),
        }
    }
}

/// Writes that fail are dropped, and it is reading that tells how the exchange ends: an endpoint
/// may answer and close before it has read the whole request, and its answer may come with the
/// reset.
impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.watch.is_intact() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.taken(written, bytes.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        if !self.watch.is_intact() {
            return Poll::Ready(Ok(length));
        }
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.taken(written, length)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.taken(flushed, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Passes writes on as they are.
macro_rules! write_through {
    ($stream:ident, $($bound:tt)+) => {
        impl<S: $($bound)+> AsyncWrite for $stream<S> {
            fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.inner).poll_write(cx, bytes)
            }

            fn poll_write_vectored(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                slices: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
            }

            fn is_write_vectored(&self) -> bool {
                self.inner.is_write_vectored()
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.inner).poll_flush(cx)
            }

            fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.inner).poll_shutdown(cx)
            }
        }
    };
}

pub(crate) use write_through;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const BOUNDS: WireBounds = WireBounds { interim_answers: 1, bytes: 100, reads: 10 };

    #[tokio::test]
    async fn a_write_that_fails_leaves_what_can_be_read() {
        let (near, mut far) = duplex(4096);
        far.write_all(b"answer").await.unwrap();
        drop(far);
        let watch = Watch::default();
        let mut near = Metered::new(near, watch.clone(), BOUNDS);
        assert!(watch.is_intact());
        near.write_all(b"request").await.unwrap();
        near.flush().await.unwrap();
        assert!(!watch.is_intact());
        let mut answer = String::new();
        near.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
    }

    #[tokio::test]
    async fn the_first_fault_is_told() {
        let (near, mut far) = duplex(4096);
        let watch = Watch::default();
        let mut near = Metered::new(near, watch.clone(), BOUNDS);
        watch.begin();
        far.write_all(&[b'x'; 101]).await.unwrap();
        let error = near.read(&mut [0; 200]).await.unwrap_err();
        assert_eq!(error.to_string(), Fault::Bytes.to_string());
        let _: Poll<io::Result<()>> = watch.fail(Fault::Switched);
        assert_eq!(watch.fault(), Some(Fault::Bytes));
        for fault in Fault::ALL {
            let watch = Watch::default();
            let _: Poll<io::Result<()>> = watch.fail(fault);
            assert_eq!(watch.fault(), Some(fault));
        }
    }
}
