//! TLS to Redis.

use std::fmt;

use ::redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, RedisResult, TlsCertificates,
};

/// The TLS settings of `rediss://` URLs. TLS 1.2 or 1.3 is used, and the server's name is always
/// verified.
#[derive(Clone, Default)]
pub struct RedisTls {
    /// The trusted authorities, in PEM. If absent, the public ones.
    pub authorities: Option<Vec<u8>>,
    /// The client's certificates and the private key of the first, each in PEM, for a server that
    /// requests them. Default: none.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for RedisTls {
    /// Omits the key.
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

    /// Adds the TLS settings to a server. A server without TLS is unchanged.
    pub(crate) fn applied(&self, server: ConnectionInfo) -> RedisResult<ConnectionInfo> {
        if !is_secure(&server) {
            return Ok(server);
        }
        // The library's client names no provider of cryptography, so it gets the default of the
        // process. Setting it fails if there is one already.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        Ok(Client::build_with_tls(server, self.certificates())?.get_connection_info().clone())
    }
}

/// Whether a server is reached over TLS.
pub(crate) fn is_secure(server: &ConnectionInfo) -> bool {
    matches!(server.addr(), ConnectionAddr::TcpTls { .. })
}

/// Whether a URL asks for certificates not to be verified (`#insecure`), which is never done.
pub(crate) fn is_careless(server: &ConnectionInfo) -> bool {
    matches!(server.addr(), ConnectionAddr::TcpTls { insecure: true, .. })
}
