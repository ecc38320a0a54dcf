//! Which certificates of endpoints are trusted.
//!
//! The library trusts authorities, and no certificate by itself: of a self-signed one in the file
//! it says that an authority is used as a server. And whatever certificate it is given as an
//! authority may vouch for every name. So the file is judged first: an authority vouches for
//! others, any other certificate is trusted itself and vouches for nobody.

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

/// Judges the certificates of endpoints.
#[derive(Debug)]
pub(crate) struct Trust {
    authorities: Arc<WebPkiServerVerifier>,
    /// Those that are trusted to the byte.
    themselves: HashSet<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Why nobody vouches for a certificate: what the library does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Untrusted {
    /// It vouches for itself.
    SelfSigned,
    /// It came alone.
    Alone,
    /// What came with it leads to nobody who is known.
    Chain,
    /// What came with it ends with one that vouches for itself.
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

/// What a certificate of the file is good for.
enum Use {
    /// It vouches for others, and is trusted itself.
    Authority,
    /// The same, but it is too old to be a server's.
    AuthorityAlone,
    /// It is trusted itself, and vouches for nobody.
    Itself,
    /// The same, if it were not expired.
    Expired,
}

impl Trust {
    /// Trusts the authorities of the web and these certificates. Errors: one of them is of no use;
    /// the error says which.
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

    /// A certificate that is trusted itself: its dates, purpose and names must be good all the
    /// same.
    fn itself(
        &self,
        certificate: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> std::result::Result<(), TlsError> {
        let certificate = ParsedCertificate::try_from(certificate)?;
        // Where nobody vouches for anything, all but that must be found good. What the endpoint
        // sends along decides nothing.
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
            // It cannot be, for nobody vouched.
            Ok(()) => return Err(CertificateError::ApplicationVerificationFailure.into()),
        }
        verify_server_name(&certificate, name)
    }
}

/// What the library says of an authority's certificate in the place of a server's, once its dates
/// were found good.
fn is_authority(error: &CertificateError) -> bool {
    let CertificateError::Other(OtherError(error)) = error else { return false };
    matches!(error.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// What a certificate is good for, now or at a time at which it is valid.
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

/// An error of the library, and who is missing where nobody vouches for a certificate.
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
