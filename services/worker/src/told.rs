//! Faults of TLS, in words for the owner of an endpoint.
//!
//! The library's own texts are mostly the names of its variants. The names of alerts stay: an operator finds them in the log of
//! the other side.

use std::{error::Error as StdError, io, time::Duration};

use tokio_rustls::rustls::{
    AlertDescription, CertificateError, Error, InvalidMessage, OtherError, PeerIncompatible, PeerMisbehaved,
    pki_types::{ServerName, UnixTime},
};

use crate::{bounds::WireBounds, trust::Untrusted, wire::Fault};

/// Longest text of a TLS error that is reported, in bytes: certificates can name many hosts.
const TEXT_BYTES: usize = 256;
/// Names of a certificate that are told.
const NAMES: usize = 3;

const NOT_TLS: &str = "the endpoint does not speak TLS on this port; is the URL meant to be http:// ?";
const AT_FAULT: &str = "the endpoint's TLS software, or something between, is at fault";
const NO_COMMON: &str =
    "the endpoint has no cipher or key exchange in common with us: it must offer ECDHE with AES-GCM or ChaCha20";
const OLD_TLS: &str = "the endpoint speaks neither TLS 1.2 nor 1.3";
const NO_HTTP: &str = "the endpoint speaks no HTTP/1.1 on this port";
const CLIENT_CERTIFICATE: &str = "the endpoint asks for a client certificate, which Outrider does not present";
const OURS: &str = "a fault of ours; Outrider's log tells more";
const MALFORMED: &str = "the certificate is malformed";
const REFUSED: &str = "the certificate is refused";

/// Why a handshake failed.
pub(crate) fn handshake(error: &io::Error, bounds: &WireBounds) -> String {
    let inner = error.get_ref();
    let cause = inner.and_then(|inner| inner.downcast_ref::<Error>());
    let fault = inner.and_then(|inner| inner.downcast_ref::<Fault>());
    let why = match (cause, fault, error.kind()) {
        (Some(cause), ..) => tls(cause),
        (None, Some(fault), _) => fault.explain(bounds),
        (None, None, io::ErrorKind::UnexpectedEof) => "the endpoint closed the connection during it".to_owned(),
        (None, None, io::ErrorKind::ConnectionReset) => "the endpoint reset the connection during it".to_owned(),
        (None, None, _) => "the connection broke".to_owned(),
    };
    cut(format!("the TLS handshake failed: {why}"))
}

/// The alert by which an endpoint ended a connection after the handshake, as one that wants a client certificate does in TLS 1.3.
pub(crate) fn alert_after(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(Error::AlertReceived(description)) = inner.and_then(|inner| inner.downcast_ref()) {
            return Some(cut(format!("the endpoint ended TLS: {}", alert(*description))));
        }
        next = error.source();
    }
    None
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES));
    text
}

/// An error of the library.
pub(crate) fn tls(error: &Error) -> String {
    tracing::debug!(?error, "TLS with an endpoint failed");
    match error {
        Error::InvalidCertificate(error) => return certificate(error),
        Error::AlertReceived(description) => return alert(*description),
        Error::PeerIncompatible(error) => incompatible(error),
        Error::InvalidMessage(error) => message(error),
        Error::PeerMisbehaved(error) => misbehaved(error),
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => AT_FAULT,
        Error::PeerSentOversizedRecord => "the endpoint sent a record larger than TLS allows",
        Error::DecryptError => "what the endpoint sent could not be decrypted; something between may change it",
        Error::NoCertificatesPresented => "the endpoint presented no certificate",
        Error::UnsupportedNameType => "the host of the URL is no name that a certificate can have",
        Error::NoApplicationProtocol => NO_HTTP,
        Error::InvalidCertRevocationList(_) | Error::InvalidEncryptedClientHello(_) => REFUSED,
        Error::EncryptError
        | Error::HandshakeNotComplete
        | Error::BadMaxFragmentSize
        | Error::InconsistentKeys(_)
        | Error::FailedToGetCurrentTime
        | Error::FailedToGetRandomBytes
        | Error::General(_)
        | Error::Other(_) => {
            tracing::warn!(?error, "TLS with an endpoint failed here");
            OURS
        }
        _ => "the endpoint's TLS does not go with ours",
    }
    .to_owned()
}

fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::ExpiredContext { time, not_after } => {
            format!("the certificate expired {} ago; the endpoint needs a new one", days(*not_after, *time))
        }
        CertificateError::Expired => "the certificate expired; the endpoint needs a new one".to_owned(),
        CertificateError::NotValidYetContext { time, not_before } => {
            format!(
                "the certificate is not valid yet (for {}); check the clock of the host that made it",
                days(*time, *not_before)
            )
        }
        CertificateError::NotValidYet => "the certificate is not valid yet; check the clock of the host that made it".to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => names(expected, presented),
        CertificateError::NotValidForName => "the certificate is not for the host of the URL".to_owned(),
        CertificateError::Other(OtherError(error)) => match error.downcast_ref::<Untrusted>() {
            Some(untrusted) => untrusted.to_string(),
            None => error.downcast_ref().map_or(REFUSED, webpki_error).to_owned(),
        },
        other => of_certificate(other).to_owned(),
    }
}

fn of_certificate(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::UnknownIssuer => "the certificate is of an authority that is not known here",
        CertificateError::BadEncoding => MALFORMED,
        CertificateError::BadSignature => {
            "a signature in the chain or of the handshake is wrong, or its RSA key has fewer than 2048 bits"
        }
        CertificateError::UnhandledCriticalExtension => "the certificate has a critical extension that is not understood",
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "the certificate is signed in a way that is not accepted any more (SHA-1, DSA) or not known"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the certificate is not for servers (extended key usage)"
        }
        CertificateError::Revoked => "the certificate was revoked",
        _ => REFUSED,
    }
}

/// What the library passes on of the one below it.
fn webpki_error(error: &webpki::Error) -> &'static str {
    use webpki::Error as E;
    match error {
        E::CaUsedAsEndEntity => "the endpoint presents the certificate of an authority instead of its own",
        E::EndEntityUsedAsCa => "a certificate in the chain vouches for another and must not",
        E::PathLenConstraintViolated | E::NameConstraintViolation => {
            "an authority in the chain may not vouch for this certificate"
        }
        E::UnsupportedCertVersion => "the certificate is X.509 version 1; version 3 is needed",
        E::UnsupportedCriticalExtension => "the certificate has a critical extension that is not understood",
        E::CertDistrusted => "an authority in the chain is distrusted",
        E::MaximumSignatureChecksExceeded
        | E::MaximumPathBuildCallsExceeded
        | E::MaximumPathDepthExceeded
        | E::MaximumNameConstraintComparisonsExceeded => "the chain of certificates is too long or too tangled",
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
            "the certificate is not for {host}; it names no host (no subjectAltName), and a common name alone does not count"
        ),
        (names, 0) => format!("the certificate is not for {host}; it is for {names}"),
        (names, more) => format!("the certificate is not for {host}; it is for {names} and {more} more"),
    }
}

/// The name in what the library makes of it: `DnsName("a.example")`, `IpAddress(192.0.2.1)`.
fn plain_name(name: &str) -> Option<String> {
    let inner = name.strip_prefix("DnsName(").or(name.strip_prefix("IpAddress("))?;
    let shown = inner.strip_suffix(')')?.trim_matches('"').chars();
    Some(shown.filter(|character| character.is_ascii_alphanumeric() || ".-*_:".contains(*character)).collect())
}

fn incompatible(error: &PeerIncompatible) -> &'static str {
    use PeerIncompatible as P;
    match error {
        P::ServerDoesNotSupportTls12Or13
        | P::ServerTlsVersionIsDisabledByOurConfig
        | P::Tls12NotOffered
        | P::Tls12NotOfferedOrEnabled
        | P::SupportedVersionsExtensionRequired => OLD_TLS,
        P::NoCipherSuitesInCommon
        | P::NoKxGroupsInCommon
        | P::NoSignatureSchemesInCommon
        | P::NoEcPointFormatsInCommon
        | P::NamedGroupsExtensionRequired
        | P::KeyShareExtensionRequired
        | P::SignatureAlgorithmsExtensionRequired
        | P::EcPointsExtensionRequired
        | P::UncompressedEcPointsRequired
        | P::NullCompressionRequired => NO_COMMON,
        P::NoCertificateRequestSignatureSchemesInCommon => CLIENT_CERTIFICATE,
        _ => "the endpoint's TLS does not go with ours",
    }
}

fn message(error: &InvalidMessage) -> &'static str {
    match error {
        // What comes instead of the first record.
        InvalidMessage::InvalidContentType | InvalidMessage::MessageTooLarge | InvalidMessage::UnknownProtocolVersion => NOT_TLS,
        InvalidMessage::CertificatePayloadTooLarge => "the chain of certificates is larger than 64 KiB",
        _ => AT_FAULT,
    }
}

fn misbehaved(error: &PeerMisbehaved) -> &'static str {
    use PeerMisbehaved as P;
    match error {
        P::AttemptedDowngradeToTls12WhenTls13IsSupported => "something between lowers the version of TLS",
        P::SelectedUnofferedApplicationProtocol => NO_HTTP,
        P::TooManyEmptyFragments
        | P::TooManyKeyUpdateRequests
        | P::TooManyRenegotiationRequests
        | P::TooManyWarningAlertsReceived
        | P::TooMuchEarlyDataReceived => "the endpoint sends too much beside the answer",
        _ => AT_FAULT,
    }
}

/// What an alert means, with its name of the RFC.
fn alert(description: AlertDescription) -> String {
    use AlertDescription as A;
    const REFUSES: &str = "the endpoint refuses our TLS; its TLS software, or something between, is at fault";
    const GARBLED: &str = "the endpoint could not decrypt or check what we sent; something between may change it";
    let (text, name) = match description {
        A::CloseNotify => ("the endpoint ended it", "close_notify"),
        A::UserCanceled => ("the endpoint ended it", "user_canceled"),
        A::UnexpectedMessage => (REFUSES, "unexpected_message"),
        A::IllegalParameter => (REFUSES, "illegal_parameter"),
        A::DecodeError => (REFUSES, "decode_error"),
        A::MissingExtension => (REFUSES, "missing_extension"),
        A::UnsupportedExtension => (REFUSES, "unsupported_extension"),
        A::UnknownPSKIdentity => (REFUSES, "unknown_psk_identity"),
        A::NoRenegotiation => (REFUSES, "no_renegotiation"),
        A::InappropriateFallback => (REFUSES, "inappropriate_fallback"),
        A::DecompressionFailure => (REFUSES, "decompression_failure"),
        A::RecordOverflow => (REFUSES, "record_overflow"),
        A::BadRecordMac => (GARBLED, "bad_record_mac"),
        A::DecryptionFailed => (GARBLED, "decryption_failed"),
        A::DecryptError => (GARBLED, "decrypt_error"),
        A::HandshakeFailure => {
            ("the endpoint found nothing in common: ciphers, or it asks for a client certificate", "handshake_failure")
        }
        A::NoCertificate => (CLIENT_CERTIFICATE, "no_certificate"),
        A::BadCertificate => (CLIENT_CERTIFICATE, "bad_certificate"),
        A::UnsupportedCertificate => (CLIENT_CERTIFICATE, "unsupported_certificate"),
        A::CertificateRevoked => (CLIENT_CERTIFICATE, "certificate_revoked"),
        A::CertificateExpired => (CLIENT_CERTIFICATE, "certificate_expired"),
        A::CertificateUnknown => (CLIENT_CERTIFICATE, "certificate_unknown"),
        A::UnknownCA => (CLIENT_CERTIFICATE, "unknown_ca"),
        A::CertificateUnobtainable => (CLIENT_CERTIFICATE, "certificate_unobtainable"),
        A::BadCertificateHashValue => (CLIENT_CERTIFICATE, "bad_certificate_hash_value"),
        A::CertificateRequired => (CLIENT_CERTIFICATE, "certificate_required"),
        A::AccessDenied => ("the endpoint refuses us; ask its operator whether Outrider is let in", "access_denied"),
        A::ExportRestriction => ("the endpoint wants other ciphers than are offered", "export_restriction"),
        A::InsufficientSecurity => ("the endpoint wants other ciphers than are offered", "insufficient_security"),
        A::ProtocolVersion => (OLD_TLS, "protocol_version"),
        A::InternalError => {
            ("the endpoint has a fault of its own, often no certificate for this name; its log tells more", "internal_error")
        }
        A::UnrecognisedName => ("the endpoint serves no host of this name", "unrecognized_name"),
        A::BadCertificateStatusResponse => {
            ("the endpoint refuses the status of a certificate", "bad_certificate_status_response")
        }
        A::NoApplicationProtocol => (NO_HTTP, "no_application_protocol"),
        A::EncryptedClientHelloRequired => ("the endpoint wants an encrypted hello, which is not offered", "ech_required"),
        other => return format!("the endpoint refuses with an alert that is not known ({})", u8::from(other)),
    };
    format!("{text} ({name})")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio_rustls::rustls::{CertRevocationListError, ContentType, HandshakeType};

    use super::*;

    /// Whether a text is for people: no braces, paths, or names of variants.
    fn is_plain(text: &str, debug: &str) -> bool {
        let camel =
            |word: &str| word.chars().zip(word.chars().skip(1)).any(|(a, b)| a.is_ascii_lowercase() && b.is_ascii_uppercase());
        let words = text.split(|character: char| !character.is_ascii_alphanumeric());
        !text.is_empty()
            && text != debug
            && !["{", "}", "::", "\""].iter().any(|mark| text.contains(mark))
            && !words.filter(|word| !["ChaCha20", "KiB", "subjectAltName"].contains(word)).any(camel)
    }

    #[test]
    fn every_alert_is_told_in_words() {
        for number in 0..=255 {
            let description = AlertDescription::from(number);
            let text = tls(&Error::AlertReceived(description));
            assert!(is_plain(&text, &format!("{description:?}")), "{number}: {text}");
            let known = !matches!(description, AlertDescription::Unknown(_));
            assert_eq!(known, !text.contains("not known ("), "{number}: {text}");
        }
        assert_eq!(alert(AlertDescription::CertificateRequired), format!("{CLIENT_CERTIFICATE} (certificate_required)"));
    }

    #[test]
    fn every_kind_of_error_is_told_in_words() {
        use webpki::Error as E;
        let time = UnixTime::since_unix_epoch(Duration::from_secs(86_400 * 30));
        let epoch = UnixTime::since_unix_epoch(Duration::ZERO);
        let below = |error: E| CertificateError::Other(OtherError(Arc::new(error)));
        let certificates = [
            CertificateError::BadEncoding,
            CertificateError::Expired,
            CertificateError::ExpiredContext { time, not_after: epoch },
            CertificateError::NotValidYet,
            CertificateError::NotValidYetContext { time: epoch, not_before: time },
            CertificateError::Revoked,
            CertificateError::UnhandledCriticalExtension,
            CertificateError::UnknownIssuer,
            CertificateError::UnknownRevocationStatus,
            CertificateError::ExpiredRevocationList,
            CertificateError::BadSignature,
            CertificateError::NotValidForName,
            CertificateError::InvalidPurpose,
            CertificateError::InvalidOcspResponse,
            CertificateError::ApplicationVerificationFailure,
            CertificateError::Other(OtherError(Arc::new(Untrusted::Chain))),
            CertificateError::Other(OtherError(Arc::new(io::Error::other("x")))),
            below(E::CaUsedAsEndEntity),
            below(E::EndEntityUsedAsCa),
            below(E::PathLenConstraintViolated),
            below(E::NameConstraintViolation),
            below(E::UnsupportedCertVersion),
            below(E::UnsupportedCriticalExtension),
            below(E::CertDistrusted),
            below(E::MaximumPathDepthExceeded),
            below(E::MalformedExtensions),
            below(E::UnsupportedDeltaCrl),
        ];
        let errors = certificates.into_iter().map(Error::InvalidCertificate).chain([
            Error::InappropriateMessage { expect_types: vec![], got_type: ContentType::Alert },
            Error::InappropriateHandshakeMessage { expect_types: vec![], got_type: HandshakeType::Finished },
            Error::InvalidMessage(InvalidMessage::InvalidContentType),
            Error::InvalidMessage(InvalidMessage::CertificatePayloadTooLarge),
            Error::InvalidMessage(InvalidMessage::TrailingData("ServerHello")),
            Error::NoCertificatesPresented,
            Error::UnsupportedNameType,
            Error::DecryptError,
            Error::EncryptError,
            Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon),
            Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13),
            Error::PeerIncompatible(PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon),
            Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic),
            Error::PeerMisbehaved(PeerMisbehaved::AttemptedDowngradeToTls12WhenTls13IsSupported),
            Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedApplicationProtocol),
            Error::PeerMisbehaved(PeerMisbehaved::TooManyKeyUpdateRequests),
            Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare),
            Error::InvalidCertRevocationList(CertRevocationListError::BadSignature),
            Error::General("SomeThing".to_owned()),
            Error::FailedToGetCurrentTime,
            Error::FailedToGetRandomBytes,
            Error::HandshakeNotComplete,
            Error::PeerSentOversizedRecord,
            Error::NoApplicationProtocol,
            Error::BadMaxFragmentSize,
            Error::Other(OtherError(Arc::new(io::Error::other("SomeThing")))),
        ]);
        for error in errors {
            let text = tls(&error);
            assert!(is_plain(&text, &format!("{error:?}")), "{error:?}: {text}");
        }
    }

    #[test]
    fn a_few_names_of_a_certificate_are_told() {
        let told = |presented: &[&str]| {
            let presented = presented.iter().map(|name| (*name).to_owned()).collect();
            let expected = ServerName::try_from("a.example").unwrap();
            tls(&Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented }))
        };
        let begin = "the certificate is not for a.example; it";
        assert_eq!(told(&["DnsName(\"b.example\")", "IpAddress(192.0.2.1)"]), format!("{begin} is for b.example, 192.0.2.1"));
        let many = ["DnsName(\"b\")", "DnsName(\"*.c\")", "DirectoryName", "DnsName(\"d\")", "DnsName(\"e\")", "DnsName(\"f\")"];
        assert_eq!(told(&many), format!("{begin} is for b, *.c, d and 2 more"));
        assert!(told(&["Unsupported(0x81)"]).starts_with(&format!("{begin} names no host")));
        let long = io::Error::other(Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("a.example").unwrap(),
            presented: vec![format!("DnsName(\"{}\")", "b".repeat(400))],
        }));
        assert_eq!(handshake(&long, &WireBounds::default()).len(), TEXT_BYTES);
    }

    #[test]
    fn the_end_of_a_connection_is_told_apart() {
        for (kind, end) in [
            (io::ErrorKind::UnexpectedEof, "the endpoint closed the connection during it"),
            (io::ErrorKind::ConnectionReset, "the endpoint reset the connection during it"),
            (io::ErrorKind::BrokenPipe, "the connection broke"),
        ] {
            assert_eq!(handshake(&kind.into(), &WireBounds::default()), format!("the TLS handshake failed: {end}"));
        }
    }

    #[test]
    fn an_alert_after_the_handshake_is_found_and_nothing_else() {
        let after = |error: Error| alert_after(&io::Error::other(error));
        let told = after(Error::AlertReceived(AlertDescription::CertificateRequired)).unwrap();
        assert_eq!(told, format!("the endpoint ended TLS: {CLIENT_CERTIFICATE} (certificate_required)"));
        assert_eq!(after(Error::DecryptError), None);
        assert_eq!(alert_after(&io::Error::from(io::ErrorKind::ConnectionReset)), None);
    }
}
