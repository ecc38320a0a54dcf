//! Explains TLS errors in words.
//!
//! The library's own texts are mostly the names of its variants. The names of alerts stay in the
//! texts, because an operator finds them in the log of the other side.

mod alert;
mod certificate;
mod peer;
#[cfg(test)]
mod tests;
mod words;

use tokio_rustls::rustls::{Error, InvalidMessage, PeerIncompatible, PeerMisbehaved};

pub use peer::Peer;

use alert::alert;
use certificate::certificate;
use words::{
    AT_FAULT, CLIENT_CERTIFICATE, ENDPOINT, NO_COMMON, NO_HTTP, NO_PROTOCOL, NOT_TLS, OLD_TLS,
    OURS, REFUSED,
};

/// Explains an error of the library.
#[must_use]
pub fn explain(error: &Error, peer: Peer) -> String {
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
        // Host names have no spaces, so nothing else is replaced.
        Peer::Server | Peer::Client => {
            text.replace(NO_HTTP, NO_PROTOCOL).replace(ENDPOINT, peer.noun())
        }
    }
}

/// Whether this side, or the library, is at fault.
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

/// Explains an error of this side. Operators see the cause; owners of endpoints do not.
fn ours(error: &Error, peer: Peer) -> String {
    if peer == Peer::Endpoint {
        tracing::warn!(%error, "TLS with an endpoint failed here");
        return OURS.to_owned();
    }
    format!("a fault of this side: {error}")
}

/// Whether the peer does not speak TLS at all.
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
            "the endpoint's data could not be decrypted; something in between may change it"
        }
        Error::NoCertificatesPresented => "the endpoint presented no certificate",
        Error::UnsupportedNameType => "no certificate can name the host of the URL",
        Error::NoApplicationProtocol => NO_HTTP,
        Error::InvalidCertRevocationList(_) | Error::InvalidEncryptedClientHello(_) => REFUSED,
        _ => "the endpoint's TLS is not compatible with ours",
    }
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
        _ => "the endpoint's TLS is not compatible with ours",
    }
}

fn message(error: &InvalidMessage) -> &'static str {
    match error {
        // Other bytes arrive instead of the first record.
        InvalidMessage::InvalidContentType
        | InvalidMessage::MessageTooLarge
        | InvalidMessage::UnknownProtocolVersion => NOT_TLS,
        InvalidMessage::CertificatePayloadTooLarge => "the certificate chain is larger than 64 KiB",
        _ => AT_FAULT,
    }
}

fn misbehaved(error: &PeerMisbehaved) -> &'static str {
    use PeerMisbehaved as P;
    match error {
        P::AttemptedDowngradeToTls12WhenTls13IsSupported => {
            "something in between lowers the version of TLS"
        }
        P::SelectedUnofferedApplicationProtocol => NO_HTTP,
        P::TooManyEmptyFragments
        | P::TooManyKeyUpdateRequests
        | P::TooManyRenegotiationRequests
        | P::TooManyWarningAlertsReceived
        | P::TooMuchEarlyDataReceived => "the endpoint sends too much in addition to the answer",
        _ => AT_FAULT,
    }
}
