//! Faults of TLS, in words.
//!
//! The library's own texts are mostly the names of its variants. The names of alerts stay: an
//! operator finds them in the log of the other side.

use std::time::Duration;

use tokio_rustls::rustls::{
    AlertDescription, CertificateError, Error, InvalidMessage, OtherError, PeerIncompatible,
    PeerMisbehaved,
    pki_types::{ServerName, UnixTime},
};

/// Who is on the other side, for texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// An endpoint, to which no certificate is presented. The texts are for its owner.
    Endpoint,
    /// A server of ours: a role, or the gateway of a command.
    Server,
    /// A client of a server of ours.
    Client,
}

impl Peer {
    fn noun(self) -> &'static str {
        match self {
            Self::Endpoint => ENDPOINT,
            Self::Server => "the server",
            Self::Client => "the client",
        }
    }
}

/// What the texts below call the other side, until it is known which one it is.
const ENDPOINT: &str = "the endpoint";
/// Names of a certificate that are told.
const NAMES: usize = 3;

const NOT_TLS: &str =
    "the endpoint does not speak TLS on this port; is the URL meant to be http:// ?";
const AT_FAULT: &str = "the endpoint's TLS software, or something between, is at fault";
const NO_COMMON: &str = "the endpoint has no cipher or key exchange in common with us: it must offer ECDHE with AES-GCM or ChaCha20";
const OLD_TLS: &str = "the endpoint speaks neither TLS 1.2 nor 1.3";
const NO_HTTP: &str = "the endpoint speaks no HTTP/1.1 on this port";
const CLIENT_CERTIFICATE: &str =
    "the endpoint asks for a client certificate, which Outrider does not present";
const OURS: &str = "a fault of ours; Outrider's log tells more";
const MALFORMED: &str = "the certificate is malformed";
const REFUSED: &str = "the certificate is refused";
const NO_PROTOCOL: &str = "the endpoint does not speak HTTP as it is asked for on this port";
const NOT_ACCEPTED: &str = "the endpoint does not accept our certificate";

/// An error of the library.
#[must_use]
pub fn told(error: &Error, peer: Peer) -> String {
    let text = match (error, peer) {
        (Error::InvalidCertificate(error), _) => certificate(error),
        (Error::AlertReceived(description), _) => alert(*description, peer),
        (error, _) if is_ours(error) => ours(error, peer),
        (error, Peer::Client) if is_plain(error) => {
            "the client does not speak TLS; is its URL meant to be https:// ?".to_owned()
        }
        (error, _) => of_peer(error).to_owned(),
    };
    match peer {
        Peer::Endpoint => text,
        // Names of hosts have no spaces: nothing else is replaced.
        Peer::Server | Peer::Client => {
            text.replace(NO_HTTP, NO_PROTOCOL).replace(ENDPOINT, peer.noun())
        }
    }
}

/// Whether the error is of this side, or of the library.
fn is_ours(error: &Error) -> bool {
    matches!(
        error,
        Error::EncryptError
            | Error::HandshakeNotComplete
            | Error::BadMaxFragmentSize
            | Error::InconsistentKeys(_)
            | Error::FailedToGetCurrentTime
            | Error::FailedToGetRandomBytes
            | Error::General(_)
            | Error::Other(_)
    )
}

/// Owners of endpoints are not told what is wrong inside; operators are.
fn ours(error: &Error, peer: Peer) -> String {
    if peer == Peer::Endpoint {
        tracing::warn!(%error, "TLS with an endpoint failed here");
        return OURS.to_owned();
    }
    format!("a fault of this side: {error}")
}

/// Whether what came is no TLS at all.
fn is_plain(error: &Error) -> bool {
    matches!(error, Error::InvalidMessage(error) if message(error) == NOT_TLS)
}

fn of_peer(error: &Error) -> &'static str {
    tracing::debug!(%error, "TLS failed");
    match error {
        Error::PeerIncompatible(error) => incompatible(error),
        Error::InvalidMessage(error) => message(error),
        Error::PeerMisbehaved(error) => misbehaved(error),
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            AT_FAULT
        }
        Error::PeerSentOversizedRecord => "the endpoint sent a record larger than TLS allows",
        Error::DecryptError => {
            "what the endpoint sent could not be decrypted; something between may change it"
        }
        Error::NoCertificatesPresented => "the endpoint presented no certificate",
        Error::UnsupportedNameType => "the host of the URL is no name that a certificate can have",
        Error::NoApplicationProtocol => NO_HTTP,
        Error::InvalidCertRevocationList(_) | Error::InvalidEncryptedClientHello(_) => REFUSED,
        _ => "the endpoint's TLS does not go with ours",
    }
}

fn certificate(error: &CertificateError) -> String {
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
                "the certificate is not valid yet (for {}); check the clock of the host that made it",
                days(*time, *not_before)
            )
        }
        CertificateError::NotValidYet => {
            "the certificate is not valid yet; check the clock of the host that made it".to_owned()
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
            "a signature in the chain or of the handshake is wrong, or its RSA key has fewer than 2048 bits"
        }
        CertificateError::UnhandledCriticalExtension => {
            "the certificate has a critical extension that is not understood"
        }
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
        E::CaUsedAsEndEntity => {
            "the endpoint presents the certificate of an authority instead of its own"
        }
        E::EndEntityUsedAsCa => "a certificate in the chain vouches for another and must not",
        E::PathLenConstraintViolated | E::NameConstraintViolation => {
            "an authority in the chain may not vouch for this certificate"
        }
        E::UnsupportedCertVersion => "the certificate is X.509 version 1; version 3 is needed",
        E::UnsupportedCriticalExtension => {
            "the certificate has a critical extension that is not understood"
        }
        E::CertDistrusted => "an authority in the chain is distrusted",
        E::MaximumSignatureChecksExceeded
        | E::MaximumPathBuildCallsExceeded
        | E::MaximumPathDepthExceeded
        | E::MaximumNameConstraintComparisonsExceeded => {
            "the chain of certificates is too long or too tangled"
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
            "the certificate is not for {host}; it names no host (no subjectAltName), and a common name alone does not count"
        ),
        (names, 0) => format!("the certificate is not for {host}; it is for {names}"),
        (names, more) => {
            format!("the certificate is not for {host}; it is for {names} and {more} more")
        }
    }
}

/// The name in what the library makes of it: `DnsName("a.example")`, `IpAddress(192.0.2.1)`.
fn plain_name(name: &str) -> Option<String> {
    let inner = name.strip_prefix("DnsName(").or(name.strip_prefix("IpAddress("))?;
    let shown = inner.strip_suffix(')')?.trim_matches('"').chars();
    Some(
        shown
            .filter(|character| character.is_ascii_alphanumeric() || ".-*_:".contains(*character))
            .collect(),
    )
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
        InvalidMessage::InvalidContentType
        | InvalidMessage::MessageTooLarge
        | InvalidMessage::UnknownProtocolVersion => NOT_TLS,
        InvalidMessage::CertificatePayloadTooLarge => {
            "the chain of certificates is larger than 64 KiB"
        }
        _ => AT_FAULT,
    }
}

fn misbehaved(error: &PeerMisbehaved) -> &'static str {
    use PeerMisbehaved as P;
    match error {
        P::AttemptedDowngradeToTls12WhenTls13IsSupported => {
            "something between lowers the version of TLS"
        }
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
fn alert(description: AlertDescription, peer: Peer) -> String {
    use AlertDescription as A;
    const REFUSES: &str =
        "the endpoint refuses our TLS; its TLS software, or something between, is at fault";
    const GARBLED: &str =
        "the endpoint could not decrypt or check what we sent; something between may change it";
    // To an endpoint none is presented: whatever it says of ours, it asks for one.
    let not_accepted = if peer == Peer::Endpoint { CLIENT_CERTIFICATE } else { NOT_ACCEPTED };
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
        A::HandshakeFailure => (
            "the endpoint found nothing in common: ciphers, or it asks for a client certificate",
            "handshake_failure",
        ),
        A::NoCertificate => (CLIENT_CERTIFICATE, "no_certificate"),
        A::CertificateRequired => (CLIENT_CERTIFICATE, "certificate_required"),
        A::BadCertificate => (not_accepted, "bad_certificate"),
        A::UnsupportedCertificate => (not_accepted, "unsupported_certificate"),
        A::CertificateRevoked => (not_accepted, "certificate_revoked"),
        A::CertificateExpired => (not_accepted, "certificate_expired"),
        A::CertificateUnknown => (not_accepted, "certificate_unknown"),
        A::UnknownCA => (not_accepted, "unknown_ca"),
        A::CertificateUnobtainable => (not_accepted, "certificate_unobtainable"),
        A::BadCertificateHashValue => (not_accepted, "bad_certificate_hash_value"),
        A::AccessDenied => (
            "the endpoint refuses us; ask its operator whether Outrider is let in",
            "access_denied",
        ),
        A::ExportRestriction => {
            ("the endpoint wants other ciphers than are offered", "export_restriction")
        }
        A::InsufficientSecurity => {
            ("the endpoint wants other ciphers than are offered", "insufficient_security")
        }
        A::ProtocolVersion => (OLD_TLS, "protocol_version"),
        A::InternalError => (
            "the endpoint has a fault of its own, often no certificate for this name; its log tells more",
            "internal_error",
        ),
        A::UnrecognisedName => ("the endpoint serves no host of this name", "unrecognized_name"),
        A::BadCertificateStatusResponse => {
            ("the endpoint refuses the status of a certificate", "bad_certificate_status_response")
        }
        A::NoApplicationProtocol => (NO_HTTP, "no_application_protocol"),
        A::EncryptedClientHelloRequired => {
            ("the endpoint wants an encrypted hello, which is not offered", "ech_required")
        }
        other => {
            return format!(
                "the endpoint refuses with an alert that is not known ({})",
                u8::from(other)
            );
        }
    };
    format!("{text} ({name})")
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use tokio_rustls::rustls::{CertRevocationListError, ContentType, HandshakeType};

    use super::*;

    /// Whether a text is for people: no braces, paths, or names of variants.
    fn in_words(text: &str, debug: &str) -> bool {
        let camel = |word: &str| {
            word.chars()
                .zip(word.chars().skip(1))
                .any(|(a, b)| a.is_ascii_lowercase() && b.is_ascii_uppercase())
        };
        let words = text.split(|character: char| !character.is_ascii_alphanumeric());
        !text.is_empty()
            && text != debug
            && !["{", "}", "::", "\""].iter().any(|mark| text.contains(mark))
            && !words
                .filter(|word| !["ChaCha20", "KiB", "subjectAltName"].contains(word))
                .any(camel)
    }

    #[test]
    fn every_alert_is_told_in_words() {
        for number in 0..=255 {
            let description = AlertDescription::from(number);
            let text = told(&Error::AlertReceived(description), Peer::Endpoint);
            assert!(in_words(&text, &format!("{description:?}")), "{number}: {text}");
            let known = !matches!(description, AlertDescription::Unknown(_));
            assert_eq!(known, !text.contains("not known ("), "{number}: {text}");
        }
        let of = |description, peer| told(&Error::AlertReceived(description), peer);
        let required = of(AlertDescription::CertificateRequired, Peer::Endpoint);
        assert_eq!(required, format!("{CLIENT_CERTIFICATE} (certificate_required)"));
        assert_eq!(
            of(AlertDescription::UnknownCA, Peer::Endpoint),
            format!("{CLIENT_CERTIFICATE} (unknown_ca)")
        );
        assert_eq!(
            of(AlertDescription::UnknownCA, Peer::Server),
            "the server does not accept our certificate (unknown_ca)"
        );
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
            Error::InappropriateHandshakeMessage {
                expect_types: vec![],
                got_type: HandshakeType::Finished,
            },
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
            let text = told(&error, Peer::Endpoint);
            assert!(in_words(&text, &format!("{error:?}")), "{error:?}: {text}");
            assert!(!told(&error, Peer::Client).contains("endpoint"), "{error:?}");
        }
    }

    #[test]
    fn a_few_names_of_a_certificate_are_told() {
        let names = |presented: &[&str]| {
            let presented = presented.iter().map(|name| (*name).to_owned()).collect();
            let expected = ServerName::try_from("a.example").unwrap();
            let error = CertificateError::NotValidForNameContext { expected, presented };
            told(&Error::InvalidCertificate(error), Peer::Endpoint)
        };
        let begin = "the certificate is not for a.example; it";
        assert_eq!(
            names(&["DnsName(\"b.example\")", "IpAddress(192.0.2.1)"]),
            format!("{begin} is for b.example, 192.0.2.1")
        );
        let many = [
            "DnsName(\"b\")",
            "DnsName(\"*.c\")",
            "DirectoryName",
            "DnsName(\"d\")",
            "DnsName(\"e\")",
            "DnsName(\"f\")",
        ];
        assert_eq!(names(&many), format!("{begin} is for b, *.c, d and 2 more"));
        assert!(names(&["Unsupported(0x81)"]).starts_with(&format!("{begin} names no host")));
    }
}
