//! Two of every role, and what stands before them, as a service of an orchestrator does: new
//! connections go to those that take them.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result};
use outrider_tests::{Outrider, Proxy, ports};
use serde_json::{Value, json};

/// Roles that others connect to.
const SERVERS: [&str; 5] = ["gateway", "ingest", "dispatch", "admin", "egress"];

/// A proxy before each role that has a listener, and the addresses behind it by process.
pub struct Fronts {
    proxies: BTreeMap<&'static str, Proxy>,
    addresses: BTreeMap<&'static str, BTreeMap<String, String>>,
    /// Where the first of every role is to listen.
    pub ports: HashMap<&'static str, u16>,
}

impl Fronts {
    /// Proxies before the first of every role, which others need to become ready.
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

    /// The configuration of roles that find each other through these.
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

    /// The URL of the public port, of both gateways.
    pub fn url(&self) -> String {
        self.of("gateway").url()
    }

    /// Starts the second of every role, and lets connections through to both.
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

    /// No new connection goes to this process, as before an orderly end.
    pub fn leave(&self, role: &str, name: &str) -> Result<()> {
        self.turn(role, |other| other != name)
    }

    /// New connections go to both again.
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
