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
                "the certificate is self-signed; use one of a public authority, or have Outrider's operator trust it"
            }
            Self::Alone => {
                "the certificate is of an authority that is not known here, or the endpoint does not send the \
                 intermediate certificates: it must send the whole chain"
            }
            Self::Chain => {
                "its chain ends with an authority that is not known here; use a public one, or have Outrider's \
                 operator trust it"
            }
            Self::OwnRoot => {
                "its chain ends with a self-signed certificate that is not trusted here; use a public authority, or \
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
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose,
        IsCa, KeyPair, date_time_ymd,
    };
    use tokio_rustls::rustls::crypto::ring;

    use super::*;
    use crate::told;

    type Der = CertificateDer<'static>;

    fn params(name: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
        let mut params = CertificateParams::new(vec!["hooks.example".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        params
    }

    fn ca(params: &mut CertificateParams) {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }

    fn expired(params: &mut CertificateParams) {
        (params.not_before, params.not_after) =
            (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    }

    fn self_signed(change: impl FnOnce(&mut CertificateParams)) -> Der {
        params("self", change).self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn issuer(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        CertifiedIssuer::self_signed(params(name, ca), KeyPair::generate().unwrap()).unwrap()
    }

    fn issued(
        by: &CertifiedIssuer<'static, KeyPair>,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Der {
        params("issued", change).signed_by(&KeyPair::generate().unwrap(), by).unwrap().der().clone()
    }

    fn trust(file: &[&Der]) -> Result<Trust> {
        let file: Vec<_> = file.iter().map(|der| (*der).clone()).collect();
        Trust::new(&file, Arc::new(ring::default_provider()))
    }

    /// What the owner of an endpoint that presents these is told; empty when they are trusted.
    fn verdict(file: &[&Der], presented: &[&Der], host: &str) -> String {
        let others: Vec<_> = presented[1..].iter().map(|der| (*der).clone()).collect();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let judged = trust(file).unwrap().verify_server_cert(
            presented[0],
            &others,
            &name,
            &[],
            UnixTime::now(),
        );
        judged.err().map(|error| told::tls(&error)).unwrap_or_default()
    }

    #[test]
    fn a_certificate_in_the_file_is_trusted_itself() {
        let authority = issuer("authority");
        for certificate in [self_signed(|_| {}), self_signed(ca), issued(&authority, |_| {})] {
            assert_eq!(verdict(&[&certificate], &[&certificate], "hooks.example"), "");
            let other = verdict(&[&certificate], &[&certificate], "other.example");
            assert_eq!(other, "the certificate is not for other.example; it is for hooks.example");
            // What comes along decides nothing.
            let old = self_signed(expired);
            assert_eq!(verdict(&[&certificate], &[&certificate, &old], "hooks.example"), "");
        }
        let client = |params: &mut CertificateParams| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]
        };
        let refused = trust(&[&self_signed(client)]).unwrap_err();
        assert_eq!(
            refused.violations[0].description,
            "certificate 1 of it is neither an authority's nor a server's"
        );
    }

    #[test]
    fn an_authority_vouches_and_a_servers_certificate_does_not() {
        let authority = issuer("authority");
        let leaf = issued(&authority, |_| {});
        let root = authority.as_ref().der();
        assert_eq!(verdict(&[root], &[&leaf], "hooks.example"), "");
        assert_eq!(verdict(&[root], &[root], "hooks.example"), "", "it is trusted itself, too");
        // One that is no authority, and whose key signed another all the same.
        let server =
            CertifiedIssuer::self_signed(params("server", |_| {}), KeyPair::generate().unwrap())
                .unwrap();
        let forged = issued(&server, |_| {});
        let told = verdict(&[server.as_ref().der()], &[&forged], "hooks.example");
        assert_eq!(told, Untrusted::Alone.to_string());
        assert_ne!(
            verdict(&[server.as_ref().der()], &[&forged, server.as_ref().der()], "hooks.example"),
            ""
        );
    }

    #[test]
    fn dates_count_for_what_is_trusted_itself() {
        // An authority that has expired is taken, as others take it; as a server it is refused.
        let old = self_signed(|params| {
            ca(params);
            expired(params);
        });
        let told = verdict(&[&old], &[&old], "hooks.example");
        assert!(
            told.starts_with("the certificate expired ")
                && told.ends_with(" days ago; the endpoint needs a new one"),
            "{told}"
        );
        let late = self_signed(|params| {
            (params.not_before, params.not_after) =
                (date_time_ymd(2090, 1, 1), date_time_ymd(2091, 1, 1))
        });
        assert!(
            verdict(&[&late], &[&late], "hooks.example")
                .starts_with("the certificate is not valid yet (for ")
        );
        // A server's that has expired is of no use, unless something else is.
        let old = self_signed(expired);
        assert_eq!(
            trust(&[&old]).unwrap_err().violations[0].description,
            "holds nothing but certificates that have expired"
        );
        assert!(trust(&[&old, &late]).is_ok() && trust(&[]).is_ok());
    }

    #[test]
    fn who_is_missing_is_told() {
        let authority = issuer("authority");
        let leaf = issued(&authority, |_| {});
        let root = authority.as_ref().der();
        for (presented, untrusted) in [
            (vec![&self_signed(|_| {})], Untrusted::SelfSigned),
            (vec![&self_signed(ca)], Untrusted::SelfSigned),
            (vec![&leaf], Untrusted::Alone),
            (vec![&leaf, root], Untrusted::OwnRoot),
            (vec![&leaf, &leaf], Untrusted::Chain),
        ] {
            assert_eq!(verdict(&[], &presented, "hooks.example"), untrusted.to_string());
        }
    }

    #[test]
    fn what_is_no_certificate_is_refused_by_its_number() {
        let good = self_signed(|_| {});
        for wrong in [vec![1, 2, 3], Vec::new(), good[..good.len() - 1].to_vec()] {
            let error = trust(&[&good, &CertificateDer::from(wrong)]).unwrap_err();
            assert_eq!(error.violations[0].field, "extra_roots");
            assert_eq!(
                error.violations[0].description,
                "certificate 2 of it is no certificate that can be used"
            );
        }
    }
}
