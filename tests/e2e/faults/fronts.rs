//! Two processes of every role behind proxies, which act like the services of an orchestrator: new
//! connections go to the processes that accept them.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result};
use outrider_tests::{Outrider, Proxy, ports};
use serde_json::{Value, json};

/// The roles that others connect to.
const SERVERS: [&str; 5] = ["gateway", "ingest", "dispatch", "admin", "egress"];

/// A proxy in front of each role that has a listener, and the addresses behind it by process.
pub struct Fronts {
    proxies: BTreeMap<&'static str, Proxy>,
    addresses: BTreeMap<&'static str, BTreeMap<String, String>>,
    /// The ports of the first process of every role.
    pub ports: HashMap<&'static str, u16>,
}

impl Fronts {
    /// Starts proxies in front of the first process of every role, which the others need to become
    /// ready.
    pub async fn start() -> Result<Self> {
        let ports = HashMap::from(SERVERS.map(|role| (role, ports::free())));
        let mut proxies = BTreeMap::new();
        for (role, port) in &ports {
            proxies.insert(*role, Proxy::start(&format!("127.0.0.1:{port}")).await?);
        }
        Ok(Self { proxies, addresses: BTreeMap::new(), ports })
    }

    fn of(&self, role: &str) -> &Proxy {
        &self.proxies[role]
    }

    /// Returns the configuration of roles that reach each other through the proxies.
    pub fn configuration(&self) -> Value {
        let url = |role: &str| self.of(role).url();
        json!({
            "gateway": {"ingest_url": url("ingest"), "dispatch_url": url("dispatch"),
                "admin_url": url("admin")},
            "ingest": {"dispatch_url": url("dispatch")},
            "worker": {"dispatch_url": url("dispatch"),
                "egress_address": self.of("egress").address()},
        })
    }

    /// Returns the URL of the public port of both gateways.
    pub fn url(&self) -> String {
        self.of("gateway").url()
    }

    /// Starts the second process of every role, and forwards connections to both.
    pub fn double(&mut self, outrider: &mut Outrider) -> Result<()> {
        for role in SERVERS {
            let second = outrider.start_another(role)?;
            let addresses =
                [(role.to_owned(), outrider.role_address(role)), (format!("{role}-2"), second)];
            self.addresses.insert(role, addresses.into());
            self.join(role)?;
        }
        outrider.start_another("worker").map(drop)
    }

    /// Directs new connections away from this process, as before an orderly end.
    pub fn leave(&self, role: &str, name: &str) -> Result<()> {
        self.turn(role, |other| other != name)
    }

    /// Directs new connections to both again.
    pub fn join(&self, role: &str) -> Result<()> {
        self.turn(role, |_| true)
    }

    fn turn(&self, role: &str, goes: impl Fn(&str) -> bool) -> Result<()> {
        // A worker has no listener.
        if role == "worker" {
            return Ok(());
        }
        let addresses = self.addresses.get(role).with_context(|| format!("no second {role}"))?;
        self.of(role).spread(
            addresses.iter().filter(|(name, _)| goes(name)).map(|(_, address)| address.as_str()),
        );
        Ok(())
    }
}
