//! The settings of admin, and what its process gives it.

use outrider_rpc::PolicyInForce;
use outrider_settings::{MIB, listen_address, section};

section! {
    /// The role that manages projects, keys, endpoints, subscriptions and event types.
    pub struct Options in "admin" {
        /// Address and port for the gateway, when it is in another process.
        pub listen: String = "127.0.0.1:8083".into(), listen_address();
    }
}

/// What the process gives admin besides its settings.
#[derive(Debug, Clone)]
pub struct Given {
    /// Which hosts and ports endpoints may have. Default: the public internet, without the ports of
    /// other services. The egress, which judges the addresses, must have the same policy.
    pub policy: PolicyInForce,
    /// Maximum size of one request of a client, in bytes. Default: 6 MiB.
    pub max_request_bytes: usize,
}

impl Default for Given {
    fn default() -> Self {
        Self { policy: PolicyInForce::default(), max_request_bytes: 6 * MIB }
    }
}
