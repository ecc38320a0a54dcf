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
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::CertificateDer},
};

use crate::{
    bounds::WireBounds,
    wire::{Fault, write_through},
};

/// Longest text of a TLS error that is reported, in bytes: certificates can name many hosts.
const ERROR_BYTES: usize = 256;

/// Trusts the authorities of the web and `extra_roots`.
pub(crate) fn connector(extra_roots: &[CertificateDer<'static>]) -> Result<TlsConnector> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for (index, root) in extra_roots.iter().enumerate() {
        roots.add(root.clone()).map_err(|error| Error::field(format!("extra_roots[{index}]"), error.to_string()))?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal(format!("TLS cannot be set up: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
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
        let decrypted = self.inner.get_mut().1.reader().read(buffer.initialize_unfilled()).unwrap_or(0);
        buffer.advance(decrypted);
        decrypted > 0
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Secure<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
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

/// Why a handshake failed, in words for the owner of the endpoint.
pub(crate) fn explain(error: &io::Error, bounds: &WireBounds) -> String {
    use tokio_rustls::rustls::Error as TlsError;
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<Fault>());
    let mut text = match (cause, fault) {
        (Some(cause), _) => format!("the TLS handshake failed: {cause}"),
        (None, Some(fault)) => format!("the TLS handshake failed: {}", fault.explain(bounds)),
        (None, _) => "the TLS handshake failed: the connection broke".to_owned(),
    };
    text.truncate(text.floor_char_boundary(ERROR_BYTES));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_that_is_no_certificate_is_named() {
        let error = connector(&[CertificateDer::from(vec![1, 2, 3])]).err().unwrap();
        assert_eq!(error.violations[0].field, "extra_roots[0]");
    }
}
