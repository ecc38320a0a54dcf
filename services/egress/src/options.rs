//! What an operator may set.

use std::{net::IpAddr, sync::Arc, time::Duration};

use outrider_rpc::{InternalToken, PolicyInForce, Tls};
use tokio::sync::Semaphore;

/// Settings and bounds of an egress.
#[derive(Debug, Clone)]
pub struct Options {
    /// What may be reached. Default: the public internet, without the ports of other services.
    pub policy: PolicyInForce,
    /// Tunnels at once, and connections being opened for one; each holds two sockets and some 20
    /// KiB. Default: 10 000.
    pub max_tunnels: usize,
    /// Connections to the proxy that have no tunnel yet. A further one takes the place of the
    /// oldest that has not presented the token. Default: 1 000.
    pub max_waiting: usize,
    /// A name's addresses that are tried, at most; all are judged. Default: 8.
    pub max_addresses: usize,
    /// Addresses of one name; a name with more is not resolved. Default: 64.
    pub max_name_addresses: usize,
    /// Names whose addresses are kept for as long as they are valid. Default: 4 096.
    pub dns_cache_entries: u64,
    /// For finding a name's addresses. Default: 5 s.
    pub dns_timeout: Duration,
    /// For opening a connection, all of a name's addresses together. Default: 10 s.
    pub connect_timeout: Duration,
    /// After which a tunnel that carried no byte in either direction is closed. Default: 120 s.
    pub idle_timeout: Duration,
    /// For a client to send its whole request. Default: 10 s.
    pub head_timeout: Duration,
    /// A request of a client, in bytes. Default: 16 KiB.
    pub max_head_bytes: usize,
    /// For tunnels to end by themselves at shutdown. Default: 10 s.
    pub drain: Duration,
    /// At shutdown, a tunnel on which the outside spoke last and nothing moved for so long is
    /// closed: it is one that a worker keeps for later. Default: 1 s.
    pub drain_idle: Duration,
    /// The local address of outgoing connections; destinations of the other family cannot be
    /// reached then. Default: the system's choice.
    pub source_address: Option<IpAddr>,
    /// What clients of the proxy must present as `Proxy-Authorization: Bearer …`; everybody is
    /// served without. Default: none.
    pub token: Option<InternalToken>,
    /// With which clients of the proxy are served, by mutual TLS; without it, plainly. Default:
    /// none.
    pub tls: Option<Arc<Tls>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            policy: PolicyInForce::default(),
            max_tunnels: 10_000,
            max_waiting: 1_000,
            max_addresses: 8,
            max_name_addresses: 64,
            dns_cache_entries: 4_096,
            dns_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(120),
            head_timeout: Duration::from_secs(10),
            max_head_bytes: 16 * 1024,
            drain: Duration::from_secs(10),
            drain_idle: Duration::from_secs(1),
            source_address: None,
            token: None,
            tls: None,
        }
    }
}

impl Options {
    /// Refuses what cannot work, with the option's name.
    pub fn check(&self) -> Result<(), StartError> {
        let bad = |option, problem| Err(StartError::Option { option, problem });
        for (option, value) in [
            ("max_tunnels", self.max_tunnels),
            ("max_waiting", self.max_waiting),
            ("max_addresses", self.max_addresses),
            ("max_name_addresses", self.max_name_addresses),
        ] {
            if !(1..=Semaphore::MAX_PERMITS).contains(&value) {
                return bad(option, "must be at least 1");
            }
        }
        if !(1_024..=1024 * 1024).contains(&self.max_head_bytes) {
            return bad("max_head_bytes", "must be between 1 KiB and 1 MiB");
        }
        for (option, value) in [
            ("dns_timeout", self.dns_timeout),
            ("connect_timeout", self.connect_timeout),
            ("idle_timeout", self.idle_timeout),
            ("head_timeout", self.head_timeout),
        ] {
            if value.is_zero() {
                return bad(option, "must not be zero");
            }
        }
        if self
            .source_address
            .is_some_and(|address| address.is_unspecified() || address.is_multicast())
        {
            return bad("source_address", "must be an address of this host");
        }
        Ok(())
    }
}

/// Why an egress does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An option is out of its bounds.
    #[error("{option}: {problem}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// The resolver cannot be set up.
    #[error("the resolver cannot be set up: {0}")]
    Resolver(String),
}
