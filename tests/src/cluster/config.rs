//! The configuration of Outrider under test.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::Result;
use serde_json::{Value, json};

use crate::{leash::Directory, pki::Identity, ports};

/// The settings that differ between scenarios.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a worker holds a job before another may take it.
    pub lease: String,
    /// The waits before the second, third, … attempt.
    pub retry_schedule: Vec<String>,
    /// Mutual TLS between roles, with one certificate for all of them.
    pub between_roles: Option<Identity>,
    /// TLS on the public port.
    pub public: Option<Identity>,
    /// Ports on which roles listen, if they must be known before the start.
    pub ports: HashMap<&'static str, u16>,
    /// Further keys, which override all others: `{"section": {"key": value}}`. null removes a key.
    pub more: Value,
}

impl Options {
    /// Returns the default settings of the product.
    #[must_use]
    pub fn of_the_product() -> Self {
        Self {
            more: json!({"queue": {"lease": null}, "dispatch": {"retry_schedule": null}}),
            ..Self::default()
        }
    }
}

impl Default for Options {
    /// Short waits, so that a test of three attempts takes a second.
    fn default() -> Self {
        let retry_schedule = vec!["300ms".to_owned(), "300ms".to_owned()];
        Self {
            lease: "45s".to_owned(),
            retry_schedule,
            between_roles: None,
            public: None,
            ports: HashMap::new(),
            more: json!({}),
        }
    }
}

/// The ports and the configuration that all processes share.
#[derive(Debug)]
pub(super) struct Plan {
    ports: HashMap<&'static str, u16>,
    operations: HashMap<&'static str, u16>,
    config: Value,
    authority: Option<PathBuf>,
}

/// Scenarios share a Redis server, so each has its own prefix.
static PREFIXES: AtomicU32 = AtomicU32::new(0);

impl Plan {
    pub(super) fn new(database: &str, queue: &str, options: &Options) -> Self {
        let port = |role| options.ports.get(role).copied().unwrap_or_else(ports::free);
        let ports: HashMap<_, _> =
            super::shape::ROLES.into_iter().map(|role| (role, port(role))).collect();
        let operations = super::shape::ROLES
            .into_iter()
            .chain(["all"])
            .map(|role| (role, ports::free()))
            .collect();
        let listen = |role: &str| format!("127.0.0.1:{}", ports[role]);
        let scheme = if options.between_roles.is_some() { "https" } else { "http" };
        let url = |role: &str| format!("{scheme}://127.0.0.1:{}", ports[role]);
        let prefix =
            format!("test-{}-{}", std::process::id(), PREFIXES.fetch_add(1, Ordering::Relaxed));
        // 32 bytes; nothing worth protecting is encrypted with it.
        let key = "dGVzdHMgdGVzdHMgdGVzdHMgdGVzdHMgdGVzdHMgdGU=";
        let mut config = json!({
            "database": {"url": database},
            "queue": {"url": queue, "lease": options.lease},
            "secrets": {"master_key": format!("test:{key}")},
            "internal": {"token": "known-to-the-roles-of-this-test-only"},
            "gateway": {
                "listen": listen("gateway"), "ingest_url": url("ingest"),
                    "dispatch_url": url("dispatch"), "admin_url": url("admin"),
            },
            "ingest": {"listen": listen("ingest"), "dispatch_url": url("dispatch")},
            "dispatch": {
                "listen": listen("dispatch"), "retry_schedule": options.retry_schedule,
            },
            "admin": {"listen": listen("admin")},
            "worker": {"dispatch_url": url("dispatch"), "egress_address": listen("egress")},
            "egress": {"listen": listen("egress"), "allow_loopback": true},
        });
        if queue != "embedded" {
            overlay(&mut config, &json!({"queue": {"prefix": prefix}}));
        }
        for (section, identity) in
            [("internal", &options.between_roles), ("gateway", &options.public)]
        {
            if let Some(Identity { certificate, private_key, .. }) = identity {
                overlay(
                    &mut config,
                    &json!({section: {"tls_certificate_file": certificate,
                        "tls_private_key_file": private_key}}),
                );
            }
        }
        if let Some(identity) = &options.between_roles {
            overlay(&mut config, &json!({"internal": {"tls_ca_file": identity.authority}}));
        }
        overlay(&mut config, &options.more);
        Self {
            ports,
            operations,
            config,
            authority: options.public.as_ref().map(|identity| identity.authority.clone()),
        }
    }

    /// Returns the authority of the public certificate, if there is one.
    pub(super) fn authority(&self) -> Option<&Path> {
        self.authority.as_deref()
    }

    /// Writes a file per role.
    pub(super) fn write(&self, directory: &Directory, roles: &[&str]) -> Result<()> {
        for role in roles {
            let mut config = self.config.clone();
            overlay(
                &mut config,
                &json!({"operations": {"listen": format!("127.0.0.1:{}", self.operations(role))}}),
            );
            fs::write(self.file(directory, role), toml::to_string(&config)?)?;
        }
        Ok(())
    }

    /// Overrides settings in the file of a role.
    pub(super) fn rewrite(&self, directory: &Directory, role: &str, more: &Value) -> Result<()> {
        let file = self.file(directory, role);
        let mut config: Value = toml::from_str(&fs::read_to_string(&file)?)?;
        overlay(&mut config, more);
        Ok(fs::write(file, toml::to_string(&config)?)?)
    }

    pub(super) fn file(&self, directory: &Directory, role: &str) -> PathBuf {
        directory.path().join(format!("{role}.toml"))
    }

    /// Returns the URL of the database.
    pub(super) fn database(&self) -> &str {
        self.config["database"]["url"].as_str().unwrap_or_default()
    }

    pub(super) fn port(&self, role: &str) -> u16 {
        self.ports[role]
    }

    pub(super) fn operations(&self, role: &str) -> u16 {
        self.operations[role]
    }
}

fn overlay(under: &mut Value, over: &Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                if value.is_null() {
                    under.shift_remove(key);
                    continue;
                }
                overlay(under.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over.clone(),
    }
}
