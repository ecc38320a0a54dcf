//! What a role would refuse when it is built, told by key before anything is opened, whichever
//! roles this process has: one file serves all of them.

use anyhow::{Context, Result, bail};
use outrider_model::Error;
use outrider_rpc::{RemoteDialer, channel};
use outrider_store::MasterKeys;

use super::{Role, Roles, egress, foundation, gateway, worker};
use crate::config::Config;

/// Fails with the first key that is wrong.
pub fn check(config: &Config) -> Result<()> {
    outrider_telemetry::check_filter(&config.log.level)?;
    worker::options(config).check().map_err(|error| of_section("worker", &error))?;
    egress::options(config)?.check().map_err(|error| anyhow::anyhow!("egress.{error}"))?;
    gateway::options(config).check().map_err(|error| anyhow::anyhow!("gateway.{error}"))?;
    if config.queue.url != "embedded" {
        foundation::redis_options(config).check().map_err(|error| of_section("queue", &error))?;
    }
    for (key, url, ..) in elsewhere(config).into_iter().filter(|(_, url, ..)| !url.is_empty()) {
        if key == EGRESS {
            RemoteDialer::new(url).context(key)?;
        } else {
            channel::parse(url).with_context(|| format!("{key} = {url}"))?;
        }
    }
    foundation::internal_token(&config.internal)?;
    if !config.secrets.master_key.0.is_empty() {
        MasterKeys::parse(config.secrets.master_key.0.trim()).context("secrets.master_key")?;
    }
    allowed_ports(config)
}

/// Where the egress is: an address, not a URL.
const EGRESS: &str = "worker.egress_address";

/// The keys that say where another role is, with what they say, the role that calls and the one
/// that is called.
fn elsewhere(config: &Config) -> [(&'static str, &str, Role, Role); 6] {
    let Config { gateway, ingest, worker, .. } = config;
    [
        ("gateway.ingest_url", &gateway.ingest_url, Role::Gateway, Role::Ingest),
        ("gateway.dispatch_url", &gateway.dispatch_url, Role::Gateway, Role::Dispatch),
        ("gateway.admin_url", &gateway.admin_url, Role::Gateway, Role::Admin),
        ("ingest.dispatch_url", &ingest.dispatch_url, Role::Ingest, Role::Dispatch),
        ("worker.dispatch_url", &worker.dispatch_url, Role::Worker, Role::Dispatch),
        (EGRESS, &worker.egress_address, Role::Worker, Role::Egress),
    ]
}

/// An empty one is wrong only where it is needed: in a process that has the role that calls, and
/// not the one that is called.
pub fn check_urls(config: &Config, roles: &Roles) -> Result<()> {
    for (key, url, caller, called) in elsewhere(config) {
        if url.is_empty() && roles.has(caller) && !roles.has(called) {
            bail!("{key}: must not be empty, since {} is not in this process", called.name());
        }
    }
    Ok(())
}

/// A port that needs no permission is most likely a misspelt one.
fn allowed_ports(config: &Config) -> Result<()> {
    for port in &config.egress.allowed_ports {
        if outrider_model::address::is_web_port(port.0) {
            bail!(
                "egress.allowed_ports: {} has no effect: webhooks may have this port without it",
                port.0
            );
        }
    }
    Ok(())
}

/// A role names the option: with the section before it, it is the key.
fn of_section(section: &str, error: &Error) -> anyhow::Error {
    match error.violations.first() {
        Some(wrong) => {
            // The window and the lease of jobs are the queue's; a worker is only told.
            let section = if wrong.field == "lease" { "queue" } else { section };
            let name = if wrong.field.starts_with("urls") { "url" } else { wrong.field.as_str() };
            anyhow::anyhow!("{section}.{name}: {}", wrong.description)
        }
        None => anyhow::anyhow!("{section}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    #[test]
    fn what_a_role_refuses_is_told_by_its_key() {
        let refused = |flags: &[&str]| {
            let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
            let config = Sources { flags, ..Sources::default() }.load().unwrap();
            format!("{:#}", check(&config).unwrap_err())
        };
        assert!(check(&Config::default()).is_ok());
        let redis =
            |url: &str| refused(&["database.url=postgres://h/d", &format!("queue.url={url}")]);
        for (flag, why) in [
            ("log.level=verbose", "log.level"),
            ("worker.response_wire_reads=1", "worker.response_wire_reads: must be at least 64"),
            (
                "worker.response_read_bytes=1",
                "worker.response_read_bytes: must be at least response_kept_bytes",
            ),
            ("worker.egress_address=egress", "worker.egress_address"),
            (
                "worker.dispatch_url=http://dispatch:8082/v1",
                "worker.dispatch_url = http://dispatch:8082/v1",
            ),
            ("gateway.admin_url=admin:8083", "gateway.admin_url = admin:8083"),
            (
                "gateway.cors_origins=*,https://a.example",
                "gateway.cors_origins: \"*\" stands alone",
            ),
            (
                "gateway.cors_origins=example.com",
                "gateway.cors_origins: \"example.com\" is not an origin",
            ),
            ("egress.max_tunnels=0", "egress.max_tunnels: must be at least 1"),
            ("egress.dns_timeout=0s", "egress.dns_timeout: must not be zero"),
            ("egress.allowed_ports=8080", "egress.allowed_ports: 8080 has no effect"),
            ("internal.token=short", "internal.token"),
            ("secrets.master_key=k1:AA==", "secrets.master_key"),
        ] {
            let refused = refused(&[flag]);
            assert!(refused.starts_with(why), "{flag}: {refused}");
        }
        for (url, why) in [
            ("redis://h/0?timeout=1", "nothing after the database"),
            ("redis://h/0#x", "nothing after the database"),
            ("redis://user@h/0", "a user name needs a password"),
            ("redis://h/-1", "must be 0 or more"),
        ] {
            let refused = redis(url);
            assert!(
                refused.starts_with("queue.url: ") && refused.contains(why),
                "{url}: {refused}"
            );
        }
        let cluster = refused(&[
            "database.url=postgres://h/d",
            "queue.url=redis://h/1",
            "queue.cluster=true",
        ]);
        assert!(
            cluster.starts_with("queue.url: ") && cluster.contains("a cluster has database 0 only"),
            "{cluster}"
        );
    }

    #[test]
    fn an_empty_url_is_refused_where_it_is_needed() {
        use Role::{Admin, All, Dispatch, Egress, Gateway, Ingest, Worker};
        let keys = elsewhere(&Config::default()).map(|(key, ..)| key);
        for (key, fine, needed) in [
            (keys[0], &[Gateway, Ingest][..], &[Gateway, Dispatch][..]),
            (keys[1], &[Gateway, Dispatch], &[Gateway]),
            (keys[2], &[Gateway, Admin], &[Gateway, Worker]),
            (keys[3], &[Worker], &[Ingest]),
            (keys[4], &[Worker, Dispatch], &[Worker, Egress]),
            (keys[5], &[Worker, Egress], &[Worker]),
        ] {
            let config =
                Sources { flags: vec![format!("{key}=")], ..Sources::default() }.load().unwrap();
            assert!(check(&config).is_ok(), "{key}");
            for fine in [&[All][..], fine] {
                assert!(check_urls(&config, &Roles::new(fine)).is_ok(), "{key}: {fine:?}");
            }
            let refused = check_urls(&config, &Roles::new(needed)).unwrap_err().to_string();
            assert!(refused.starts_with(&format!("{key}: ")), "{refused}");
        }
    }
}
