//! Decides which certificates of endpoints are trusted.
//!
//! The library trusts authorities, and no certificate by itself. It rejects a self-signed one in
//! the file as an authority that is used as a server. Also, any certificate that it is given as an
//! authority may vouch for every name. So the certificates of the file are classified first: an
//! authority vouches for others, and any other certificate is trusted itself and vouches for none.

use std::{collections::HashSet, fmt, sync::Arc};

use outrider_model::{Error, Result};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, Error as TlsError, OtherError, RootCertStore,
    SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// Verifies the certificates of endpoints.
#[derive(Debug)]
pub(crate) struct Trust {
    authorities: Arc<WebPkiServerVerifier>,
    /// Certificates that are trusted themselves, byte for byte.
    themselves: HashSet<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// The reason why no authority vouches for a certificate, which the library does not report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Untrusted {
    /// The certificate is self-signed.
    SelfSigned,
    /// The endpoint sent no further certificates.
    Alone,
    /// The chain does not lead to a known authority.
    Chain,
    /// The chain ends with a self-signed certificate.
    OwnRoot,
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SelfSigned => {
                "the certificate is self-signed; use one of a public authority, or have Outrider's \
                    operator trust it"
            }
            Self::Alone => {
                "the certificate is of an authority that is not known here, or the endpoint does \
                    not send the \
                 intermediate certificates: it must send the whole chain"
            }
            Self::Chain => {
                "its chain ends with an authority that is not known here; use a public one, or \
                    have Outrider's \
                 operator trust it"
            }
            Self::OwnRoot => {
                "its chain ends with a self-signed certificate that is not trusted here; use a \
                    public authority, or \
                 have Outrider's operator trust it"
            }
        })
    }
}

impl std::error::Error for Untrusted {}

/// The use of a certificate in the file.
enum Use {
    /// The certificate vouches for others, and is trusted itself.
    Authority,
    /// The same, but it has expired as a server certificate.
    AuthorityAlone,
    /// The certificate is trusted itself, and vouches for none.
    Itself,
    /// The same, but it has expired.
    Expired,
}

impl Trust {
    /// Trusts the public authorities and these certificates. Errors: one of them is unusable; the
    /// error says which.
    pub(crate) fn new(
        extra: &[CertificateDer<'static>],
        provider: Arc<CryptoProvider>,
    ) -> Result<Self> {
        let algorithms = provider.signature_verification_algorithms;
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let mut themselves = HashSet::new();
        let mut useful = extra.is_empty();
        for (index, certificate) in extra.iter().enumerate() {
            let refused = |why: &str| {
                Error::field("extra_roots", format!("certificate {} of it {why}", index + 1))
            };
            let found = judge(certificate, algorithms).map_err(refused)?;
            if matches!(found, Use::Authority | Use::AuthorityAlone) {
                roots
                    .add(certificate.clone())
                    .map_err(|_| refused("is no certificate that can be used"))?;
            }
            if matches!(found, Use::Authority | Use::Itself) {
                themselves.insert(certificate.clone());
            }
            match found {
                Use::Expired => tracing::warn!(
                    certificate = index + 1,
                    "a certificate that is to be trusted has expired"
                ),
                _ => useful = true,
            }
        }
        if !useful {
            return Err(Error::field(
                "extra_roots",
                "holds nothing but certificates that have expired",
            ));
        }
        let authorities =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let authorities = authorities
            .map_err(|error| Error::internal(format!("TLS cannot be set up: {error}")))?;
        Ok(Self { authorities, themselves, algorithms })
    }

    /// Verifies a certificate that is trusted itself. Its dates, purpose and names must still be
    /// valid.
    fn itself(
        &self,
        certificate: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> std::result::Result<(), TlsError> {
        let certificate = ParsedCertificate::try_from(certificate)?;
        // Verifies without any authority: everything else must be valid. Further certificates of
        // the endpoint decide nothing.
        let nobody = RootCertStore::empty();
        match verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &nobody,
            &[],
            now,
            self.algorithms.all,
        ) {
            Err(TlsError::InvalidCertificate(CertificateError::UnknownIssuer)) => {}
            Err(TlsError::InvalidCertificate(ref error)) if is_authority(error) => {}
            Err(error) => return Err(error),
            // This cannot happen, because there is no authority.
            Ok(()) => return Err(CertificateError::ApplicationVerificationFailure.into()),
        }
        verify_server_name(&certificate, name)
    }
}

/// Whether the library rejected an authority's certificate that is used as a server's, after it
/// found the dates valid.
fn is_authority(error: &CertificateError) -> bool {
    let CertificateError::Other(OtherError(error)) = error else { return false };
    matches!(error.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// Returns the use of a certificate, now or at a time at which it is valid.
fn judge(
    certificate: &CertificateDer<'_>,
    algorithms: WebPkiSupportedAlgorithms,
) -> std::result::Result<Use, &'static str> {
    const NONE: &str = "is no certificate that can be used";
    let parsed = match EndEntityCert::try_from(certificate) {
        Ok(parsed) => parsed,
        Err(webpki::Error::UnsupportedCertVersion)
            if anchor_from_trusted_cert(certificate).is_ok() =>
        {
            return Ok(Use::AuthorityAlone);
        }
        Err(_) => return Err(NONE),
    };
    let at = |time| {
        let judged = parsed.verify_for_usage(
            algorithms.all,
            &[],
            &[],
            time,
            KeyUsage::server_auth(),
            None,
            None,
        );
        judged.err().unwrap_or(webpki::Error::UnknownIssuer)
    };
    let (mut error, mut expired) = (at(UnixTime::now()), false);
    match error {
        webpki::Error::CertExpired { not_after, .. } => (error, expired) = (at(not_after), true),
        webpki::Error::CertNotValidYet { not_before, .. } => error = at(not_before),
        _ => {}
    }
    match error {
        webpki::Error::CaUsedAsEndEntity => Ok(Use::Authority),
        webpki::Error::UnknownIssuer if expired => Ok(Use::Expired),
        webpki::Error::UnknownIssuer => Ok(Use::Itself),
        webpki::Error::RequiredEkuNotFoundContext(_) => {
            Err("is neither an authority's nor a server's")
        }
        _ => Err(NONE),
    }
}

/// Adds the missing authority to an error of the library.
fn refined(
    error: TlsError,
    end_entity: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
) -> TlsError {
    let (unknown, authority) = match &error {
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer) => (true, false),
        TlsError::InvalidCertificate(other) => (false, is_authority(other)),
        _ => (false, false),
    };
    let untrusted = match () {
        () if (unknown || authority) && signed_itself(end_entity) => Untrusted::SelfSigned,
        () if !unknown => return error,
        () if others.is_empty() => Untrusted::Alone,
        () if others.last().is_some_and(signed_itself) => Untrusted::OwnRoot,
        () => Untrusted::Chain,
    };
    CertificateError::Other(OtherError(Arc::new(untrusted))).into()
}

fn signed_itself(certificate: &CertificateDer<'_>) -> bool {
    EndEntityCert::try_from(certificate).is_ok_and(|parsed| parsed.issuer() == parsed.subject())
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, TlsError> {
        if self.themselves.contains(end_entity) {
            return self
                .itself(end_entity, server_name, now)
                .map(|()| ServerCertVerified::assertion());
        }
        let judged = self.authorities.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        judged.map_err(|error| refined(error, end_entity, intermediates))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        self.authorities.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        self.authorities.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests;
