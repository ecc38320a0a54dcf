//! Alerts: the peer's own report of what went wrong.

use tokio_rustls::rustls::AlertDescription;

use super::{
    peer::Peer,
    words::{CLIENT_CERTIFICATE, NO_HTTP, NOT_ACCEPTED, OLD_TLS},
};

/// Explains an alert, with its name in the RFC.
pub(super) fn alert(description: AlertDescription, peer: Peer) -> String {
    use AlertDescription as A;
    const REFUSES: &str =
        "the endpoint refuses our TLS; its TLS software is at fault, or something in between";
    const GARBLED: &str =
        "the endpoint could not decrypt or verify our data; something in between may change it";
    // Endpoints get no client certificate: an endpoint that complains about it asks for one.
    let not_accepted = if peer == Peer::Endpoint { CLIENT_CERTIFICATE } else { NOT_ACCEPTED };
    let (text, name) = match description {
        A::CloseNotify => ("the endpoint ended the connection", "close_notify"),
        A::UserCanceled => ("the endpoint ended the connection", "user_canceled"),
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
            "the endpoint found no common cipher, or it asks for a client certificate",
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
            "the endpoint denies access; ask its operator whether Outrider may connect",
            "access_denied",
        ),
        A::ExportRestriction => {
            ("the endpoint requires other ciphers than Outrider offers", "export_restriction")
        }
        A::InsufficientSecurity => {
            ("the endpoint requires other ciphers than Outrider offers", "insufficient_security")
        }
        A::ProtocolVersion => (OLD_TLS, "protocol_version"),
        A::InternalError => (
            "the endpoint has an internal error, often no certificate for this name; its log says \
             more",
            "internal_error",
        ),
        A::UnrecognisedName => ("the endpoint serves no host of this name", "unrecognized_name"),
        A::BadCertificateStatusResponse => {
            ("the endpoint refuses the status of a certificate", "bad_certificate_status_response")
        }
        A::NoApplicationProtocol => (NO_HTTP, "no_application_protocol"),
        A::EncryptedClientHelloRequired => (
            "the endpoint requires an encrypted hello, which Outrider does not offer",
            "ech_required",
        ),
        other => {
            return format!(
                "the endpoint refuses with an alert that is not known ({})",
                u8::from(other)
            );
        }
    };
    format!("{text} ({name})")
}
