//! TLS to Redis.

use std::fmt;

use ::redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, RedisResult, TlsCertificates,
};

/// With what connections of `rediss://` URLs are made: TLS 1.2 or 1.3, the server's name always
/// verified.
#[derive(Clone, Default)]
pub struct RedisTls {
    /// The authorities that are trusted, in PEM. Default none: those of the web.
    pub authorities: Option<Vec<u8>>,
    /// Our certificates and the private key of the first, each in PEM, for a server that asks for
    /// them. Default none.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for RedisTls {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisTls")
            .field("authorities", &self.authorities.is_some())
            .field("identity", &self.identity.is_some())
            .finish()
    }
}

impl RedisTls {
    pub(crate) fn certificates(&self) -> TlsCertificates {
        let client_tls = self
            .identity
            .clone()
            .map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
        TlsCertificates { client_tls, root_cert: self.authorities.clone() }
    }

    /// The server with what TLS to it needs; unchanged when it is reached plainly.
    pub(crate) fn applied(&self, server: ConnectionInfo) -> RedisResult<ConnectionInfo> {
        if !is_secure(&server) {
            return Ok(server);
        }
        // Its client names no provider of cryptography: it gets the one that all others name. This
        // fails when there is one already.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        Ok(Client::build_with_tls(server, self.certificates())?.get_connection_info().clone())
    }
}

/// Whether a server is reached by TLS.
pub(crate) fn is_secure(server: &ConnectionInfo) -> bool {
    matches!(server.addr(), ConnectionAddr::TcpTls { .. })
}

/// Whether a URL asks that certificates are not verified (`#insecure`), which we never do.
pub(crate) fn is_careless(server: &ConnectionInfo) -> bool {
    matches!(server.addr(), ConnectionAddr::TcpTls { insecure: true, .. })
}
