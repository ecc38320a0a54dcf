//! Alerts: the peer's own report of what went wrong.

use tokio_rustls::rustls::AlertDescription;

use super::{
    peer::Peer,
    words::{CLIENT_CERTIFICATE, NO_HTTP, NOT_ACCEPTED, OLD_TLS},
};

/// What an alert means, with its name of the RFC.
pub(super) fn alert(description: AlertDescription, peer: Peer) -> String {
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
