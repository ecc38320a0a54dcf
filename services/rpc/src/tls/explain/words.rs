//! Phrases that several explanations share.

/// How the phrases name the other side until the actual peer is known.
pub(super) const ENDPOINT: &str = "the endpoint";

pub(super) const NOT_TLS: &str =
    "the endpoint does not speak TLS on this port; is the URL meant to be http:// ?";
pub(super) const AT_FAULT: &str =
    "the endpoint's TLS software is at fault, or something in between";
pub(super) const NO_COMMON: &str = "the endpoint has no cipher or key exchange in common with \
     us: it must offer ECDHE with AES-GCM or ChaCha20";
pub(super) const OLD_TLS: &str = "the endpoint speaks neither TLS 1.2 nor 1.3";
pub(super) const NO_HTTP: &str = "the endpoint speaks no HTTP/1.1 on this port";
pub(super) const CLIENT_CERTIFICATE: &str =
    "the endpoint asks for a client certificate, which Outrider does not present";
pub(super) const OURS: &str = "a fault of Outrider; its log says more";
pub(super) const MALFORMED: &str = "the certificate is malformed";
pub(super) const REFUSED: &str = "the certificate is refused";
pub(super) const NO_PROTOCOL: &str =
    "the endpoint does not speak the requested version of HTTP on this port";
pub(super) const NOT_ACCEPTED: &str = "the endpoint does not accept our certificate";
