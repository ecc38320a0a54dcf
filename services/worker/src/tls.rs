//! TLS towards endpoints: 1.2 or 1.3, certificates always verified, HTTP/1.1 only.

use std::{
    io::{self, IoSlice, Read},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use outrider_model::{Error, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, client::Resumption, crypto::ring, pki_types::CertificateDer},
};

use crate::{trust::Trust, wire::write_through};

/// Trusts the authorities of the web and `extra_roots`. Of so many hosts TLS sessions are
/// remembered, which are resumed on new connections.
pub(crate) fn connector(
    extra_roots: &[CertificateDer<'static>],
    sessions: usize,
) -> Result<TlsConnector> {
    let provider = Arc::new(ring::default_provider());
    let trust = Trust::new(extra_roots, Arc::clone(&provider))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal(format!("TLS cannot be set up: {error}")))?
        // It is the library's own verifier, with certificates that are trusted themselves beside
        // it.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(trust))
        .with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(sessions);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A connection under TLS that gives what came intact before a fault, and only then the fault.
///
/// Records that come together are decrypted together; when one of them is at fault, the library
/// tells the fault at once. The answer before it counts: an endpoint that answered 2xx must not get
/// the event again because its TLS ended badly.
pub(crate) struct Secure<S> {
    inner: TlsStream<S>,
    /// The fault, while what came before it is read.
    fault: Option<io::Error>,
}

impl<S> Secure<S> {
    pub(crate) fn new(inner: TlsStream<S>) -> Self {
        Self { inner, fault: None }
    }

    /// Reads what was decrypted already; false when there is nothing.
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
