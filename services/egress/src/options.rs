//! The settings of the egress, and what its process gives it.

use std::{net::IpAddr, sync::Arc, time::Duration};

use outrider_model::address::{Entry, MAX_ENTRIES, Policy, is_web_port};
use outrider_rpc::{InternalToken, PolicyInForce, Tls};
use outrider_settings::{
    Invalid, KIB, MIB, Parsed, Port, Positive, listen_address, seconds, section,
};
use tokio::sync::Semaphore;

section! {
    /// The role that opens connections to the outside.
    pub struct Options in "egress" {
        /// Address and port of the proxy for workers in other processes.
        pub listen: String = "127.0.0.1:8084".into(), listen_address();
        /// For development only: permits loopback addresses, which lets customers reach this
        /// machine's own services.
        pub allow_loopback: bool = false;
        /// Ports of other services (SSH, mail, databases, control planes …; the list is in
        /// docs/egress.md) that endpoints may have nevertheless. Set it in the processes with admin
        /// and in those with egress.
        pub allowed_ports: Vec<Port> = Vec::new();
        /// Destinations that may be reached in addition to the public internet: networks
        /// (`10.20.0.0/16`), addresses, names (`receiver`) and all names below one
        /// (`*.svc.cluster.local`). Each is for a port (`:8080`), for ports (`:8000-8999`), or for
        /// all ports that webhooks may have; IPv6 with a port is in brackets. At most 1,000.
        /// Metadata services of clouds need their exact address. Set it in the processes with admin
        /// and in those with egress. A change takes effect without a restart.
        pub allow: Vec<Parsed<Entry>> = Vec::new();
        /// Destinations that may not be reached, whatever allows them, in the same form. At most
        /// 1,000.
        pub deny: Vec<Parsed<Entry>> = Vec::new();
        /// Maximum number of tunnels, and of connections being opened for one. Each has two sockets
        /// and some 20 KiB.
        pub max_tunnels: usize = 10_000, 1..=Semaphore::MAX_PERMITS;
        /// Maximum number of connections to the proxy that have no tunnel yet. A further one
        /// replaces the oldest that has not presented the token.
        pub max_waiting: usize = 1_000, 1..=Semaphore::MAX_PERMITS;
        /// Maximum number of addresses of a name that are tried. All are judged.
        pub max_addresses: usize = 8, 1..;
        /// Maximum number of addresses of one name. A name with more is not resolved.
        pub max_name_addresses: usize = 64, 1..;
        /// Maximum number of names whose addresses are cached for as long as they are valid.
        pub dns_cache_entries: u64 = 4_096;
        /// How long a name may take to resolve.
        pub dns_timeout: Duration = seconds(5), Positive;
        /// How long a connection may take to open, over all addresses of a name.
        pub connect_timeout: Duration = seconds(10), Positive;
        /// How long a tunnel may carry no byte in either direction before it is closed.
        pub idle_timeout: Duration = seconds(120), Positive;
        /// How long a client of the proxy may take to send its whole request.
        pub head_timeout: Duration = seconds(10), Positive;
        /// Maximum size of a request of a client of the proxy, in bytes.
        pub max_head_bytes: usize = 16 * KIB, KIB..=MIB;
        /// At shutdown: how long tunnels may take to end by themselves.
        pub drain: Duration = seconds(10);
        /// At shutdown: how long a tunnel may be quiet, if the outside spoke last, before it is
        /// closed. A worker keeps such a tunnel for later.
        pub drain_idle: Duration = seconds(1);
        /// The local address of outgoing connections; empty to let the system choose. Destinations
        /// of the other family cannot be reached then.
        pub source_address: Option<IpAddr> = None;
    }
    with rules;
}

impl Options {
    /// Returns the policy of these settings.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let entries = |list: &[Parsed<Entry>]| list.iter().map(|entry| entry.0.clone()).collect();
        Policy {
            allow_loopback: self.allow_loopback,
            allowed_ports: self.allowed_ports.iter().map(|port| port.0).collect(),
            allow: entries(&self.allow),
            deny: entries(&self.deny),
        }
    }
}

fn rules(options: &Options) -> Result<(), Invalid> {
    // A port that needs no permission is most likely mistyped.
    if let Some(port) = options.allowed_ports.iter().find(|port| is_web_port(port.0)) {
        let why = format!("{} has no effect: webhooks may have this port without it", port.0);
        return Err(Invalid::new("egress.allowed_ports", why));
    }
    list("egress.allow", &options.allow)?;
    list("egress.deny", &options.deny)?;
    Invalid::unless(
        !options.source_address.is_some_and(|one| one.is_unspecified() || one.is_multicast()),
        "egress.source_address",
        "must be an address of this host",
    )
}

/// Checks that a list of destinations is within its bound, and has no entry twice.
fn list(key: &str, entries: &[Parsed<Entry>]) -> Result<(), Invalid> {
    let most = format!("must not have more than {MAX_ENTRIES} entries");
    Invalid::unless(entries.len() <= MAX_ENTRIES, key, most)?;
    for (at, entry) in entries.iter().enumerate() {
        if let Some(first) = entries[..at].iter().position(|other| other == entry) {
            let twice = format!("has {} twice, at {first} and at {at} (from 0)", entry.0);
            return Err(Invalid::new(key, twice));
        }
    }
    Ok(())
}

/// What the process gives an egress besides its settings.
#[derive(Debug, Clone)]
pub struct Given {
    /// The policy in force. It begins as [`Options::policy`], and can be replaced while the egress
    /// works.
    pub policy: PolicyInForce,
    /// The token that clients of the proxy must present as `Proxy-Authorization: Bearer …`. Without
    /// one, every client is served.
    pub token: Option<InternalToken>,
    /// Mutual TLS with clients of the proxy. Without it, connections are plain.
    pub tls: Option<Arc<Tls>>,
}

impl From<Policy> for Given {
    /// A policy, without a token and TLS.
    fn from(policy: Policy) -> Self {
        Self { policy: policy.into(), token: None, tls: None }
    }
}

/// The reason why an egress does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is out of its bounds.
    #[error(transparent)]
    Setting(#[from] Invalid),
    /// The resolver cannot be set up.
    #[error("the resolver cannot be set up: {0}")]
    Resolver(String),
}
