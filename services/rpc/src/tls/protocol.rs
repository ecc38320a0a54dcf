//! Protocols that a TLS handshake negotiates.

/// The protocol of a connection, negotiated in the handshake (ALPN).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 or HTTP/1.1, chosen by the client: the public listener.
    Web,
    /// HTTP/2: gRPC between roles.
    Grpc,
    /// HTTP/1.1: the egress proxy.
    Proxy,
}

impl Protocol {
    pub(super) fn names(self) -> Vec<Vec<u8>> {
        let names: &[&[u8]] = match self {
            Self::Web => &[b"h2", b"http/1.1"],
            Self::Grpc => &[b"h2"],
            Self::Proxy => &[b"http/1.1"],
        };
        names.iter().map(|name| name.to_vec()).collect()
    }
}
