//! How a worker reaches the outside: through the egress role, in this process or as a proxy.

use async_trait::async_trait;

use crate::socket::Socket;

/// Opens a connection to a host and port of the outside, if the egress policy permits it.
#[async_trait]
pub trait Dialer: Send + Sync + 'static {
    /// A connection to `host` (a name, or an address without brackets) and `port`. The caller sets the deadline by dropping the future.
    async fn dial(&self, host: &str, port: u16) -> Result<Socket, DialError>;
}

/// Why there is no connection. The texts are for the owners of endpoints: they name no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The policy refuses the name or one of its addresses; the rule says which.
    #[error("the {} is not allowed ({rule})", if rule.starts_with("port-") { "port" } else { "address" })]
    Refused {
        /// A stable name of the rule.
        rule: String,
    },
    /// The name has no address.
    #[error("the host name does not resolve")]
    NotResolved,
    /// No vetted address took the connection.
    #[error("the connection failed")]
    ConnectFailed,
    /// The egress itself cannot be reached or is full: no fault of the endpoint's.
    #[error("the egress is unavailable")]
    EgressUnavailable,
}
