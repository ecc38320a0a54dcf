//! The stream above TLS.

use std::{
    io::{self, IoSlice, Read},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;

use super::write_through::write_through;

/// A TLS connection that returns intact data before a fault, and only then the fault.
///
/// Records that arrive together are decrypted together. If one of them has a fault, the library
/// reports it at once. But the response before it counts: an endpoint that returned 2xx must not
/// get the event again because its TLS connection ended badly.
pub(crate) struct Secure<S> {
    inner: TlsStream<S>,
    /// The fault, while the data before it is read.
    fault: Option<io::Error>,
}

impl<S> Secure<S> {
    pub(crate) fn new(inner: TlsStream<S>) -> Self {
        Self { inner, fault: None }
    }

    /// Reads data that was decrypted already. Returns false if there is none.
    fn drain(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let decrypted =
            self.inner.get_mut().1.reader().read(buffer.initialize_unfilled()).unwrap_or(0);
        buffer.advance(decrypted);
        decrypted > 0
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Secure<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let fault = match self.fault.take() {
            Some(fault) => fault,
            None => match Pin::new(&mut self.inner).poll_read(cx, buffer) {
                Poll::Ready(Err(fault)) => fault,
                other => return other,
            },
        };
        if !self.drain(buffer) {
            return Poll::Ready(Err(fault));
        }
        self.fault = Some(fault);
        Poll::Ready(Ok(()))
    }
}

write_through!(Secure, AsyncRead + AsyncWrite + Unpin);
