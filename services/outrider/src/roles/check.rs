//! Checks the configuration before a process opens anything.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail};
use outrider_model::limits;
use outrider_rpc::{RemoteDialer, channel};
use outrider_settings::Span;
use outrider_store::{Backend, MasterKeys};

use super::{
    foundation,
    role::{QUEUED, Role, Roles, STORED},
};
use crate::config::Config;

/// Fails with the first key that is wrong.
pub fn check(config: &Config) -> Result<()> {
    for (key, url, ..) in elsewhere(config).into_iter().filter(|(_, url, ..)| !url.is_empty()) {
        if key == EGRESS {
            RemoteDialer::new(url).context(key)?;
        } else {
            channel::parse(url).with_context(|| format!("{key} = {url}"))?;
        }
    }
    foundation::internal_token(&config.internal)?;
    if !config.secrets.master_key.is_empty() {
        MasterKeys::parse(config.secrets.master_key.trim()).context("secrets.master_key")?;
    }
    Ok(())
}

/// The key with the address of the egress, which is not a URL.
const EGRESS: &str = "worker.egress_address";

/// Returns the keys with addresses of other roles: key, value, the role that calls, and the role
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

/// Refuses empty addresses where they are needed: in a process that has the calling role and not
/// the called one.
pub fn check_urls(config: &Config, roles: &Roles) -> Result<()> {
    for (key, url, caller, called) in elsewhere(config) {
        if url.is_empty() && roles.has(caller) && !roles.has(called) {
            bail!("{key}: must not be empty, since {} is not in this process", called.name());
        }
    }
    Ok(())
}

/// Fails with the first key that a process with these roles refuses.
pub fn check_all(config: &Config, roles: &Roles) -> Result<()> {
    check(config)?;
    check_urls(config, roles)?;
    check_shape(config, roles)?;
    let guarded = !config.internal.token.trim().is_empty()
        || !config.internal.tls_certificate_file.is_empty();
    check_listeners(config, roles, guarded)
}

/// Warns about a lease that is shorter than an attempt: only renewal then keeps the job.
pub fn check_lease(config: &Config) {
    let longest = Duration::from_millis(limits::TIMEOUT_MILLIS.2);
    if config.queue.lease <= longest {
        let lease = Span(config.queue.lease);
        tracing::warn!(
            %lease,
            "queue.lease is not above 30s, the longest timeout of an endpoint: only renewal keeps \
             jobs with their worker"
        );
    }
}

/// Warns about a low limit of open files. It is not an error, because it suffices for little
/// traffic.
pub fn check_limit_of_files(config: &Config, roles: &Roles) {
    let wanted = files_wanted(config, roles);
    match rlimit::Resource::NOFILE.get_soft() {
        Ok(limit) if limit < wanted => {
            tracing::warn!(
                limit,
                wanted,
                "the limit of open files is low: each connection needs one, and deliveries wait"
            );
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit of open files is not known"),
    }
}

/// Returns the number of files that a process with these roles may open: about a thousand for
/// callers and servers, one for each request and each idle connection of a worker, and two for each
/// tunnel of an egress for other processes.
fn files_wanted(config: &Config, roles: &Roles) -> u64 {
    const OTHERS: usize = 1_024;
    let connections =
        (config.worker.max_in_flight as usize).saturating_add(config.worker.pool_idle_total);
    let worker = if roles.has(Role::Worker) { connections } else { 0 };
    let egress = if roles.has(Role::Egress) && !roles.is_all() {
        config.egress.max_tunnels.saturating_mul(2)
    } else {
        0
    };
    u64::try_from(OTHERS.saturating_add(worker).saturating_add(egress)).unwrap_or(u64::MAX)
}

/// Refuses SQLite and the embedded queue in a process that does not have all roles.
fn check_shape(config: &Config, roles: &Roles) -> Result<()> {
    if roles.is_all() {
        return Ok(());
    }
    if Backend::of(&config.database.url) == Some(Backend::Sqlite) && roles.has_any(&STORED) {
        bail!(
            "database.url: SQLite serves one process with all roles; \
             roles of their own need PostgreSQL"
        );
    }
    if config.queue.is_embedded() && roles.has_any(&QUEUED) {
        bail!(
            "queue.url: the embedded queue serves one process with all roles; \
             roles of their own need Redis"
        );
    }
    Ok(())
}

/// Refuses unprotected listeners between roles beyond loopback. Whoever reaches one could settle
/// deliveries, use the egress or resolve API keys, so the token or mutual TLS is required.
fn check_listeners(config: &Config, roles: &Roles, guarded: bool) -> Result<()> {
    if guarded || roles.is_all() {
        return Ok(());
    }
    for (role, key, listen) in [
        (Role::Dispatch, "dispatch.listen", &config.dispatch.listen),
        (Role::Egress, "egress.listen", &config.egress.listen),
        (Role::Ingest, "ingest.listen", &config.ingest.listen),
        (Role::Admin, "admin.listen", &config.admin.listen),
    ] {
        let loopback = listen.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback());
        if roles.has(role) && !loopback {
            bail!(
                "internal.token or internal.tls_certificate_file: one is required, \
                 since {key} = {listen} is not on loopback"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    #[test]
    fn what_a_role_refuses_is_told_by_its_key() {
        let refused = |flags: &[&str]| {
            let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
            let sources = Sources { flags, ..Sources::default() };
            match sources.load() {
                Ok(config) => format!("{:#}", check(&config).unwrap_err()),
                Err(error) => error.to_string(),
            }
        };
        assert!(check(&Config::default()).is_ok());
        let redis =
            |url: &str| refused(&["database.url=postgres://h/d", &format!("queue.url={url}")]);
        for (flag, why) in [
            ("log.level=verbose", "log.level"),
            ("worker.response_wire_reads=1", "worker.response_wire_reads: must be at least 64"),
            (
                "worker.response_read_bytes=1",
                "worker.response_read_bytes: must be at least worker.response_kept_bytes",
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
            ("egress.max_tunnels=0", "egress.max_tunnels: must be 1 to"),
            ("egress.dns_timeout=0s", "egress.dns_timeout: must be more than 0s"),
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

    #[test]
    fn listeners_between_roles_need_a_token_beyond_loopback() {
        let mut config = Config::default();
        let apart = Roles::new(&[Role::Dispatch, Role::Egress]);
        assert!(check_listeners(&config, &apart, false).is_ok());
        config.egress.listen = "0.0.0.0:8084".into();
        config.ingest.listen = "0.0.0.0:8081".into();
        let refused = check_listeners(&config, &apart, false).unwrap_err().to_string();
        assert!(refused.contains("internal.token") && refused.contains("egress.listen"));
        let refused =
            check_listeners(&config, &Roles::new(&[Role::Ingest]), false).unwrap_err().to_string();
        assert!(refused.contains("internal.token") && refused.contains("ingest.listen"));
        assert!(check_listeners(&config, &apart, true).is_ok());
        assert!(check_listeners(&config, &Roles::new(&[Role::All]), false).is_ok());
    }

    #[test]
    fn what_lives_in_one_process_is_not_split() {
        let config = Config::default();
        assert!(check_shape(&config, &Roles::new(&[Role::All])).is_ok());
        assert!(check_shape(&config, &Roles::new(&[Role::Gateway, Role::Egress])).is_ok());
        assert!(check_shape(&config, &Roles::new(&[Role::Dispatch])).is_err());
    }
}
