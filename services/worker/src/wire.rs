//! The connection to an endpoint, with the bounds that the HTTP and TLS libraries do not have.
//!
//! [`Metered`] lies below TLS: it counts the bytes and reads of each exchange, so that nothing that
//! an endpoint can send (TLS records without content, session tickets, chunks of one byte, chunk
//! extensions, trailers) costs more than a bounded time. [`Heads`] lies above TLS: it counts interim
//! answers, which hyper skips without a bound. An ordinary answer costs it a look at the first
//! twelve bytes.

use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{bounds::WireBounds, interim::Interim, measure};

/// What an endpoint did beyond the bounds.
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
}

impl Fault {
    const ALL: [Self; 5] = [Self::Interim, Self::Head, Self::Switched, Self::Bytes, Self::Reads];

    /// In words for the owner of the endpoint.
    pub(crate) fn explain(self, bounds: &WireBounds) -> String {
        match self {
            Self::Interim => format!("more than {} interim answers", bounds.interim_answers),
            Self::Head => "the head of the answer is too large".to_owned(),
            Self::Switched => "the endpoint switched protocols, which was not asked for".to_owned(),
            Self::Bytes => format!("more than {} bytes on the wire for one exchange", bounds.bytes),
            Self::Reads => format!("more than {} pieces on the wire for one exchange", bounds.reads),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an endpoint exceeds the bounds of an exchange: {self:?}")
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
}

impl Watch {
    /// The next exchange begins.
    pub(crate) fn begin(&self) {
        self.0.exchange.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether all that was written was taken: only then the connection is of further use.
    pub(crate) fn is_intact(&self) -> bool {
        !self.0.deaf.load(Ordering::Relaxed)
    }

    /// Why reading was given up, if it was.
    pub(crate) fn fault(&self) -> Option<Fault> {
        let number = self.0.fault.load(Ordering::Relaxed);
        Fault::ALL.into_iter().find(|fault| *fault as u8 == number)
    }

    fn exchange(&self) -> u32 {
        self.0.exchange.load(Ordering::Relaxed)
    }

    fn fail<T>(&self, fault: Fault) -> Poll<io::Result<T>> {
        if self.0.fault.compare_exchange(0, fault as u8, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
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
        if self.bytes > self.bounds.bytes { Some(Fault::Bytes) } else { (self.reads > self.bounds.reads).then_some(Fault::Reads) }
    }
}

impl<S> Metered<S> {
    /// What a write that may have failed is taken for.
    fn taken<T>(&self, written: Poll<io::Result<T>>, whole: T) -> Poll<io::Result<T>> {
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
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        match self.count(buffer.filled().len() - before) {
            Some(fault) => self.watch.fail(fault),
            None => Poll::Ready(Ok(())),
        }
    }
}

/// Counts interim answers, and bounds them and the head of the answer together.
pub(crate) struct Heads<S> {
    inner: S,
    watch: Watch,
    exchange: u32,
    interim: Interim,
    bounds: WireBounds,
    head_bytes: usize,
}

impl<S> Heads<S> {
    pub(crate) fn new(inner: S, watch: Watch, bounds: WireBounds, head_bytes: usize) -> Self {
        let interim = Interim::new(bounds.interim_answers, head_bytes);
        Self { inner, watch, exchange: 0, interim, bounds, head_bytes }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heads<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        let exchange = self.watch.exchange();
        if exchange != self.exchange {
            self.exchange = exchange;
            self.interim = Interim::new(self.bounds.interim_answers, self.head_bytes);
        }
        match self.interim.advance(&buffer.filled()[before..]) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(fault) => self.watch.fail(fault),
        }
    }
}

/// Writes that fail are dropped, and it is reading that tells how the exchange ends: an endpoint may
/// answer and close before it has read the whole request, and its answer may come with the reset.
impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.watch.is_intact() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.taken(written, bytes.len())
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
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

write_through!(Heads, AsyncWrite + Unpin);
pub(crate) use write_through;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

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

    fn pair() -> (Watch, Heads<Metered<DuplexStream>>, DuplexStream) {
        let (near, far) = duplex(4096);
        let watch = Watch::default();
        let metered = Metered::new(near, watch.clone(), BOUNDS);
        (watch.clone(), Heads::new(metered, watch, BOUNDS, 60), far)
    }

    #[tokio::test]
    async fn each_exchange_has_its_own_counts() {
        let (watch, mut near, mut far) = pair();
        let mut buffer = [0; 64];
        for _ in 0..5 {
            watch.begin();
            far.write_all(b"HTTP/1.1 100 A\r\n\r\nHTTP/1.1 200 B\r\n\r\n").await.unwrap();
            for _ in 0..9 {
                assert_eq!(near.read(&mut buffer[..4]).await.unwrap(), 4);
            }
            assert_eq!(watch.fault(), None);
        }
        far.write_all(b"xxxx").await.unwrap();
        near.read_exact(&mut buffer[..1]).await.unwrap();
        assert!(near.read(&mut buffer[..1]).await.is_err(), "between exchanges nothing is free");
        assert_eq!(watch.fault(), Some(Fault::Reads));
    }

    #[tokio::test]
    async fn the_first_fault_is_told() {
        let (watch, mut near, mut far) = pair();
        watch.begin();
        far.write_all(&[b'x'; 101]).await.unwrap();
        let error = near.read(&mut [0; 200]).await.unwrap_err();
        assert_eq!(error.to_string(), Fault::Bytes.to_string());
        far.write_all(b"HTTP/1.1 101 A\r\n").await.unwrap();
        assert!(near.read(&mut [0; 200]).await.is_err());
        assert_eq!(watch.fault(), Some(Fault::Bytes));
        for fault in Fault::ALL {
            let watch = Watch::default();
            let _: Poll<io::Result<()>> = watch.fail(fault);
            assert_eq!(watch.fault(), Some(fault));
        }
    }
}
