use std::{io, sync::Arc, time::Duration};

use tokio_rustls::rustls::{
    AlertDescription, CertRevocationListError, CertificateError, ContentType, Error, HandshakeType,
    InvalidMessage, OtherError, PeerIncompatible, PeerMisbehaved,
    pki_types::{ServerName, UnixTime},
};

use super::{Peer, explain, words::CLIENT_CERTIFICATE};

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
        && !words.filter(|word| !["ChaCha20", "KiB", "subjectAltName"].contains(word)).any(camel)
}

#[test]
fn every_alert_is_told_in_words() {
    for number in 0..=255 {
        let description = AlertDescription::from(number);
        let text = explain(&Error::AlertReceived(description), Peer::Endpoint);
        assert!(in_words(&text, &format!("{description:?}")), "{number}: {text}");
        let known = !matches!(description, AlertDescription::Unknown(_));
        assert_eq!(known, !text.contains("not known ("), "{number}: {text}");
    }
    let of = |description, peer| explain(&Error::AlertReceived(description), peer);
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
        let text = explain(&error, Peer::Endpoint);
        assert!(in_words(&text, &format!("{error:?}")), "{error:?}: {text}");
        assert!(!explain(&error, Peer::Client).contains("endpoint"), "{error:?}");
    }
}

#[test]
fn a_few_names_of_a_certificate_are_explain() {
    let names = |presented: &[&str]| {
        let presented = presented.iter().map(|name| (*name).to_owned()).collect();
        let expected = ServerName::try_from("a.example").unwrap();
        let error = CertificateError::NotValidForNameContext { expected, presented };
        explain(&Error::InvalidCertificate(error), Peer::Endpoint)
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
