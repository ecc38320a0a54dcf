//! Explains TLS errors to the owner of an endpoint.

use std::{error::Error as StdError, io};

use outrider_rpc::tls::{Peer, explain};
use tokio_rustls::rustls::{CertificateError, Error, OtherError};

use crate::{bounds::WireBounds, fault::Fault, trust::Untrusted};

/// Maximum length of the text of a TLS error, in bytes. Certificates can name many hosts.
const TEXT_BYTES: usize = 256;

/// Returns the reason why a handshake failed.
pub(crate) fn handshake(error: &io::Error, bounds: &WireBounds) -> String {
    let inner = error.get_ref();
    let cause = inner.and_then(|inner| inner.downcast_ref::<Error>());
    let fault = inner.and_then(|inner| inner.downcast_ref::<Fault>());
    let why = match (cause, fault, error.kind()) {
        (Some(cause), ..) => tls(cause),
        (None, Some(fault), _) => fault.explain(bounds),
        (None, None, io::ErrorKind::UnexpectedEof) => {
            "the endpoint closed the connection during it".to_owned()
        }
        (None, None, io::ErrorKind::ConnectionReset) => {
            "the endpoint reset the connection during it".to_owned()
        }
        (None, None, io::ErrorKind::TimedOut) => "the endpoint did not answer any more".to_owned(),
        (None, None, io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
            "the endpoint was not reachable any more".to_owned()
        }
        (None, None, _) => "the connection broke".to_owned(),
    };
    cut(format!("the TLS handshake failed: {why}"))
}

/// Returns the alert with which an endpoint ended a connection after the handshake. In TLS 1.3, an
/// endpoint that requires a client certificate does this.
pub(crate) fn alert_after(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(error @ Error::AlertReceived(_)) = inner.and_then(|inner| inner.downcast_ref())
        {
            return Some(cut(format!("the endpoint ended TLS: {}", tls(error))));
        }
        next = error.source();
    }
    None
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES));
    text
}

/// Describes an error of the library, or of our own verification of certificates.
pub(crate) fn tls(error: &Error) -> String {
    let of_ours = match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(error))) => {
            error.downcast_ref::<Untrusted>()
        }
        _ => None,
    };
    of_ours.map_or_else(|| explain(error, Peer::Endpoint), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio_rustls::rustls::{AlertDescription, pki_types::ServerName};

    use super::*;
    use crate::options::Options;

    #[test]
    fn our_own_judgement_is_told_and_a_long_text_is_cut() {
        let untrusted = Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(
            Untrusted::Chain,
        ))));
        assert_eq!(tls(&untrusted), Untrusted::Chain.to_string());
        let long =
            io::Error::other(Error::InvalidCertificate(CertificateError::NotValidForNameContext {
                expected: ServerName::try_from("a.example").unwrap(),
                presented: vec![format!("DnsName(\"{}\")", "b".repeat(400))],
            }));
        assert_eq!(handshake(&long, &Options::default().wire()).len(), TEXT_BYTES);
    }

    #[test]
    fn the_end_of_a_connection_is_told_apart() {
        for (kind, end) in [
            (io::ErrorKind::UnexpectedEof, "the endpoint closed the connection during it"),
            (io::ErrorKind::ConnectionReset, "the endpoint reset the connection during it"),
            (io::ErrorKind::BrokenPipe, "the connection broke"),
        ] {
            assert_eq!(
                handshake(&kind.into(), &Options::default().wire()),
                format!("the TLS handshake failed: {end}")
            );
        }
    }

    #[test]
    fn an_alert_after_the_handshake_is_found_and_nothing_else() {
        let after = |error: Error| alert_after(&io::Error::other(error));
        let told = after(Error::AlertReceived(AlertDescription::CertificateRequired)).unwrap();
        let expected = "the endpoint asks for a client certificate, which Outrider does not \
            present (certificate_required)";
        assert_eq!(told, format!("the endpoint ended TLS: {expected}"));
        assert_eq!(after(Error::DecryptError), None);
        assert_eq!(alert_after(&io::Error::from(io::ErrorKind::ConnectionReset)), None);
    }
}
