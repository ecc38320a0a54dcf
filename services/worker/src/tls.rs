//! TLS towards endpoints: 1.2 or 1.3, certificates always verified, HTTP/1.1 only.

use std::{io, sync::Arc};

use outrider_model::{Error, Result};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::CertificateDer},
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

/// Why a handshake failed, in words for the owner of the endpoint.
pub(crate) fn explain(error: &io::Error) -> String {
    use tokio_rustls::rustls::Error as TlsError;
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    let mut text = match cause {
        Some(cause) => format!("the TLS handshake failed: {cause}"),
        None => "the TLS handshake failed: the connection broke".to_owned(),
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
