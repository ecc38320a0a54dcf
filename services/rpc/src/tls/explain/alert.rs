//! Alerts: the peer's own report of what went wrong.

use tokio_rustls::rustls::AlertDescription;

use super::{
    peer::Peer,
    words::{CLIENT_CERTIFICATE, NO_HTTP, NOT_ACCEPTED, OLD_TLS},
};

/// Explains an alert, with its name in the RFC.
pub(super) fn alert(description: AlertDescription, peer: Peer) -> String {
    match (text(description, peer), name(description)) {
        (Some(text), Some(name)) => format!("{text} ({name})"),
        _ => {
            let number = u8::from(description);
            format!("the endpoint refuses with an alert that is not known ({number})")
        }
    }
}

fn text(description: AlertDescription, peer: Peer) -> Option<&'static str> {
    use AlertDescription as A;
    Some(match description {
        A::CloseNotify | A::UserCanceled => "the endpoint ended the connection",
        A::UnexpectedMessage
        | A::IllegalParameter
        | A::DecodeError
        | A::MissingExtension
        | A::UnsupportedExtension
        | A::UnknownPSKIdentity
        | A::NoRenegotiation
        | A::InappropriateFallback
        | A::DecompressionFailure
        | A::RecordOverflow => {
            "the endpoint refuses our TLS; its TLS software is at fault, or something in between"
        }
        A::BadRecordMac | A::DecryptionFailed | A::DecryptError => {
            "the endpoint could not decrypt or verify our data; something in between may change it"
        }
        A::HandshakeFailure => {
            "the endpoint found no common cipher, or it asks for a client certificate"
        }
        A::NoCertificate | A::CertificateRequired => CLIENT_CERTIFICATE,
        // Endpoints get no client certificate: an endpoint that complains about it asks for one.
        A::BadCertificate
        | A::UnsupportedCertificate
        | A::CertificateRevoked
        | A::CertificateExpired
        | A::CertificateUnknown
        | A::UnknownCA
        | A::CertificateUnobtainable
        | A::BadCertificateHashValue => {
            if peer == Peer::Endpoint {
                CLIENT_CERTIFICATE
            } else {
                NOT_ACCEPTED
            }
        }
        A::AccessDenied => {
            "the endpoint denies access; ask its operator whether Outrider may connect"
        }
        A::ExportRestriction | A::InsufficientSecurity => {
            "the endpoint requires other ciphers than Outrider offers"
        }
        A::ProtocolVersion => OLD_TLS,
        A::InternalError => {
            "the endpoint has an internal error, often no certificate for this name; its \
             log says more"
        }
        A::UnrecognisedName => "the endpoint serves no host of this name",
        A::BadCertificateStatusResponse => "the endpoint refuses the status of a certificate",
        A::NoApplicationProtocol => NO_HTTP,
        A::EncryptedClientHelloRequired => {
            "the endpoint requires an encrypted hello, which Outrider does not offer"
        }
        _ => return None,
    })
}

fn name(description: AlertDescription) -> Option<&'static str> {
    use AlertDescription as A;
    Some(match description {
        A::CloseNotify => "close_notify",
        A::UserCanceled => "user_canceled",
        A::UnexpectedMessage => "unexpected_message",
        A::IllegalParameter => "illegal_parameter",
        A::DecodeError => "decode_error",
        A::MissingExtension => "missing_extension",
        A::UnsupportedExtension => "unsupported_extension",
        A::UnknownPSKIdentity => "unknown_psk_identity",
        A::NoRenegotiation => "no_renegotiation",
        A::InappropriateFallback => "inappropriate_fallback",
        A::DecompressionFailure => "decompression_failure",
        A::RecordOverflow => "record_overflow",
        A::BadRecordMac => "bad_record_mac",
        A::DecryptionFailed => "decryption_failed",
        A::DecryptError => "decrypt_error",
        A::HandshakeFailure => "handshake_failure",
        A::NoCertificate => "no_certificate",
        A::CertificateRequired => "certificate_required",
        A::BadCertificate => "bad_certificate",
        A::UnsupportedCertificate => "unsupported_certificate",
        A::CertificateRevoked => "certificate_revoked",
        A::CertificateExpired => "certificate_expired",
        A::CertificateUnknown => "certificate_unknown",
        A::UnknownCA => "unknown_ca",
        A::CertificateUnobtainable => "certificate_unobtainable",
        A::BadCertificateHashValue => "bad_certificate_hash_value",
        A::AccessDenied => "access_denied",
        A::ExportRestriction => "export_restriction",
        A::InsufficientSecurity => "insufficient_security",
        A::ProtocolVersion => "protocol_version",
        A::InternalError => "internal_error",
        A::UnrecognisedName => "unrecognized_name",
        A::BadCertificateStatusResponse => "bad_certificate_status_response",
        A::NoApplicationProtocol => "no_application_protocol",
        A::EncryptedClientHelloRequired => "ech_required",
        _ => return None,
    })
}
