//! A connection, plain or with TLS, for listeners and dialers alike.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
};
use tokio_rustls::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// A connection. It may hold a permit of its listener's limit, and bytes that were read ahead.
#[derive(Debug)]
pub struct Socket {
    stream: Stream,
    /// Bytes that were read from the stream too early. Readers get them first.
    ahead: Bytes,
    /// Ends the connection for its reader, as long as nothing was read.
    end_if_silent: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// Cuts the connection while its reader waits.
    cut: Option<Cut>,
    _permit: Option<OwnedSemaphorePermit>,
}

struct Cut(Pin<Box<dyn Future<Output = ()> + Send + Sync>>);

impl fmt::Debug for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cut")
    }
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl From<Stream> for Socket {
    fn from(stream: Stream) -> Self {
        Self { stream, ahead: Bytes::new(), end_if_silent: None, cut: None, _permit: None }
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Stream::Plain(stream).into()
    }
}

impl From<TlsStream<TcpStream>> for Socket {
    fn from(stream: TlsStream<TcpStream>) -> Self {
        Stream::Tls(Box::new(stream)).into()
    }
}

impl Socket {
    /// Ends for its reader when `end` is cancelled, unless something was read from it by then. A
    /// client that cancels a call while it connects leaves a connection on which it sends nothing.
    #[must_use]
    pub fn ending_if_silent_at(self, end: CancellationToken) -> Self {
        Self { end_if_silent: Some(Box::pin(end.cancelled_owned())), ..self }
    }

    /// Fails for its reader when `end` resolves, even while nothing is in flight on it.
    #[must_use]
    pub fn cut_when(self, end: impl Future<Output = ()> + Send + Sync + 'static) -> Self {
        Self { cut: Some(Cut(Box::pin(end))), ..self }
    }

    /// Gives back bytes that were read too early. They are read first.
    #[must_use]
    pub fn with_ahead(self, ahead: Bytes) -> Self {
        Self { ahead, ..self }
    }

    /// Holds a permit until the connection is dropped.
    #[must_use]
    pub fn with_permit(self, permit: OwnedSemaphorePermit) -> Self {
        Self { _permit: Some(permit), ..self }
    }

    /// Returns the TCP stream, for its options and addresses.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl Connected for Socket {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let taken = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead[..taken]);
            self.ahead.advance(taken);
            return Poll::Ready(Ok(()));
        }
        let filled = buffer.filled().len();
        let read = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        if read.is_pending()
            && let Some(Cut(end)) = &mut self.cut
            && end.as_mut().poll(cx).is_ready()
        {
            // A future that has resolved must not be polled again.
            self.cut = Some(Cut(Box::pin(std::future::ready(()))));
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let Some(end) = &mut self.end_if_silent else { return read };
        if read.is_pending() {
            ready!(end.as_mut().poll(cx));
            return Poll::Ready(Ok(()));
        }
        if buffer.filled().len() > filled {
            self.end_if_silent = None;
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
