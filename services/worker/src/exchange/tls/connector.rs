//! TLS towards endpoints: 1.2 or 1.3, certificates always verified, HTTP/1.1 only.

use std::sync::Arc;

use outrider_model::{Error, Result};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, client::Resumption, crypto::ring, pki_types::CertificateDer},
};

use crate::trust::Trust;

/// Trusts the public authorities and `extra_roots`. Remembers TLS sessions of this many hosts,
/// which are resumed on new connections.
pub(crate) fn connector(
    extra_roots: &[CertificateDer<'static>],
    sessions: usize,
) -> Result<TlsConnector> {
    let provider = Arc::new(ring::default_provider());
    let trust = Trust::new(extra_roots, Arc::clone(&provider))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal(format!("TLS cannot be set up: {error}")))?
        // This is the library's own verifier, plus certificates that are trusted themselves.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(trust))
        .with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(sessions);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}
