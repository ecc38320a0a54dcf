//! The lowest stream, which counts reads.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::watch::Watch;
use crate::{bounds::WireBounds, fault::Fault};

/// Counts the reads of each exchange. Data between two exchanges counts for the former.
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

    /// Counts a read. Returns the bound that it exceeds.
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
    /// Treats a failed write as successful.
    fn taken<T>(&self, written: Poll<io::Result<T>>, whole: T) -> Poll<io::Result<T>> {
        self.watch.set_stuck(written.is_pending());
        match written {
            Poll::Ready(Err(_)) => {
                self.watch.set_deaf();
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

/// Failed writes are dropped, and reading determines how the exchange ends. An endpoint may answer
/// and close before it has read the whole request, and its response may arrive with the reset.
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
