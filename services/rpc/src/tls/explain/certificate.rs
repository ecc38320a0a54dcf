//! Faults of certificates.

use std::time::Duration;

use tokio_rustls::rustls::{
    CertificateError, OtherError,
    pki_types::{ServerName, UnixTime},
};

use super::words::{MALFORMED, REFUSED};

/// Maximum number of names of a certificate in an explanation.
const NAMES: usize = 3;

pub(super) fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::ExpiredContext { time, not_after } => {
            format!(
                "the certificate expired {} ago; the endpoint needs a new one",
                days(*not_after, *time)
            )
        }
        CertificateError::Expired => {
            "the certificate expired; the endpoint needs a new one".to_owned()
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            format!(
                "the certificate is not valid yet (for {}); check the clock of the host that \
                 issued it",
                days(*time, *not_before)
            )
        }
        CertificateError::NotValidYet => {
            "the certificate is not valid yet; check the clock of the host that issued it"
                .to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            names(expected, presented)
        }
        CertificateError::NotValidForName => {
            "the certificate is not for the host of the URL".to_owned()
        }
        CertificateError::Other(OtherError(error)) => {
            error.downcast_ref().map_or(REFUSED, webpki_error).to_owned()
        }
        other => of_certificate(other).to_owned(),
    }
}

fn of_certificate(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::UnknownIssuer => {
            "the certificate is of an authority that is not known here"
        }
        CertificateError::BadEncoding => MALFORMED,
        CertificateError::BadSignature => {
            "a signature in the chain or of the handshake is wrong, or its RSA key has fewer than \
             2048 bits"
        }
        CertificateError::UnhandledCriticalExtension => {
            "the certificate has a critical extension that is not supported"
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "the certificate is signed in a way that is no longer accepted (SHA-1, DSA) or is not \
             known"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the certificate is not for servers (extended key usage)"
        }
        CertificateError::Revoked => "the certificate was revoked",
        _ => REFUSED,
    }
}

/// Explains an error of the library that verifies certificates.
fn webpki_error(error: &webpki::Error) -> &'static str {
    use webpki::Error as E;
    match error {
        E::CaUsedAsEndEntity => {
            "the endpoint presents the certificate of an authority instead of its own"
        }
        E::EndEntityUsedAsCa => "a certificate in the chain signs another but must not",
        E::PathLenConstraintViolated | E::NameConstraintViolation => {
            "an authority in the chain must not sign this certificate"
        }
        E::UnsupportedCertVersion => "the certificate is X.509 version 1; version 3 is needed",
        E::UnsupportedCriticalExtension => {
            "the certificate has a critical extension that is not supported"
        }
        E::CertDistrusted => "an authority in the chain is distrusted",
        E::MaximumSignatureChecksExceeded
        | E::MaximumPathBuildCallsExceeded
        | E::MaximumPathDepthExceeded
        | E::MaximumNameConstraintComparisonsExceeded => {
            "the certificate chain is too long or too complex"
        }
        E::MalformedExtensions
        | E::MalformedDnsIdentifier
        | E::MalformedNameConstraint
        | E::InvalidNetworkMaskConstraint
        | E::ExtensionValueInvalid
        | E::EmptyEkuExtension
        | E::SignatureAlgorithmMismatch
        | E::InvalidSerialNumber
        | E::UnsupportedNameType => MALFORMED,
        _ => REFUSED,
    }
}

fn days(from: UnixTime, to: UnixTime) -> String {
    let seconds = Duration::from_secs(to.as_secs().saturating_sub(from.as_secs())).as_secs();
    match seconds / 86_400 {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

fn names(expected: &ServerName<'_>, presented: &[String]) -> String {
    let host = expected.to_str();
    let mut known: Vec<_> = presented.iter().filter_map(|name| plain_name(name)).collect();
    let more = known.len().saturating_sub(NAMES);
    known.truncate(NAMES);
    match (known.join(", "), more) {
        (names, _) if names.is_empty() => format!(
            "the certificate is not for {host}; it names no host (no subjectAltName), and a common \
             name alone does not count"
        ),
        (names, 0) => format!("the certificate is not for {host}; it is for {names}"),
        (names, more) => {
            format!("the certificate is not for {host}; it is for {names} and {more} more")
        }
    }
}

/// Extracts the name from the library's text: `DnsName("a.example")`, `IpAddress(192.0.2.1)`.
fn plain_name(name: &str) -> Option<String> {
    let inner = name.strip_prefix("DnsName(").or(name.strip_prefix("IpAddress("))?;
    let shown = inner.strip_suffix(')')?.trim_matches('"').chars();
    Some(
        shown
            .filter(|character| character.is_ascii_alphanumeric() || ".-*_:".contains(*character))
            .collect(),
    )
}
