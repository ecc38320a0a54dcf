//! Rules between keys and limits of values, checked at start.

use std::{net::SocketAddr, time::Duration};

use outrider_model::address::MAX_ENTRIES;
use outrider_rpc::channel;
use outrider_store::{Backend, check_url};

use super::{Config, Error, Target, Telemetry, without_effect};

mod gateway;

/// The first rule that is broken, by key.
pub fn validate(config: &Config) -> Result<(), Error> {
    let backend = Backend::of(&config.database.url);
    let sqlite = backend == Some(Backend::Sqlite);
    let embedded = config.queue.url == "embedded";
    let redis =
        config.queue.url.starts_with("redis://") || config.queue.url.starts_with("rediss://");

    check_url(&config.database.url)
        .map_err(|message| Error::Invalid { key: "database.url", message })?;
    check(
        "queue.url",
        embedded || redis,
        "must be \"embedded\" or begin with redis:// or rediss://",
    )?;
    check(
        "queue.url",
        !sqlite || embedded,
        "must be \"embedded\" with SQLite, whose one process holds everything; Redis needs \
            PostgreSQL",
    )?;
    check("queue.shards", (1..=256).contains(&config.queue.shards), "must be 1 to 256")?;
    check("queue.lease", config.queue.lease.0 >= Duration::from_secs(1), "must be at least 1s")?;
    check("queue.window", config.queue.window >= 8, "must be at least 8")?;
    for (key, time) in [
        ("database.acquire_timeout", config.database.acquire_timeout.0),
        ("database.statement_timeout", config.database.statement_timeout.0),
    ] {
        check(key, time >= Duration::from_millis(100), "must be at least 100ms")?;
    }
    check("database.max_connections", config.database.max_connections >= 4, "must be at least 4")?;
    check(
        "database.ledger_connections",
        config.database.ledger_connections >= 4,
        "must be at least 4",
    )?;
    check(
        "log.format",
        ["text", "json"].contains(&config.log.format.as_str()),
        "must be \"text\" or \"json\"",
    )?;
    telemetry(&config.telemetry)?;
    check(
        "dispatch.measure_period",
        config.dispatch.measure_period.0 >= Duration::from_millis(100),
        "must be at least 100ms",
    )?;
    check(
        "dispatch.audit_period",
        config.dispatch.audit_period.0 >= Duration::from_millis(100),
        "must be at least 100ms",
    )?;
    check(
        "dispatch.audit_grace",
        config.dispatch.audit_grace.0 >= Duration::from_secs(1),
        "must be at least 1s",
    )?;
    check("dispatch.audit_batch", config.dispatch.audit_batch > 0, "must be at least 1")?;
    check(
        "dispatch.feed_period",
        config.dispatch.feed_period.0 >= Duration::from_millis(10),
        "must be at least 10ms",
    )?;
    check(
        "dispatch.check_after",
        config.dispatch.check_after.0 >= Duration::from_secs(1),
        "must be at least 1s",
    )?;
    check("dispatch.feed_batch", config.dispatch.feed_batch > 0, "must be at least 1")?;
    let heartbeat = (Duration::from_secs(1)..=Duration::from_secs(60))
        .contains(&config.dispatch.tail_heartbeat.0);
    check("dispatch.tail_heartbeat", heartbeat, "must be 1s to 60s")?;
    check("dispatch.tail_readers", config.dispatch.tail_readers > 0, "must be at least 1")?;
    check(
        "dispatch.tail_buffer_bytes",
        config.dispatch.tail_buffer_bytes >= 1024 * 1024,
        "must be at least 1048576",
    )?;
    check(
        "dispatch.tail_poll",
        config.dispatch.tail_poll.0 >= Duration::from_millis(10),
        "must be at least 10ms",
    )?;
    let day = Duration::from_secs(24 * 3600);
    check(
        "dispatch.tail_retention",
        config.dispatch.tail_retention.0 >= day,
        "must be at least 24h",
    )?;
    for (key, kept) in [
        ("dispatch.retention", config.dispatch.retention.0),
        ("dispatch.change_retention", config.dispatch.change_retention.0),
    ] {
        check(key, kept.is_zero() || kept >= day, "must be at least 24h, or 0s for ever")?;
    }
    check(
        "dispatch.sweep_period",
        config.dispatch.sweep_period.0 >= Duration::from_millis(100),
        "must be at least 100ms",
    )?;
    check("dispatch.accept_batch", config.dispatch.accept_batch > 0, "must be at least 1")?;
    check("dispatch.accept_queue", config.dispatch.accept_queue > 0, "must be at least 1")?;
    check("dispatch.settle_batch", config.dispatch.settle_batch > 0, "must be at least 1")?;
    check("dispatch.accept_lanes", config.dispatch.accept_lanes > 0, "must be at least 1")?;
    check("dispatch.settle_lanes", config.dispatch.settle_lanes > 0, "must be at least 1")?;
    let lifetime = config.dispatch.idempotency_lifetime.0;
    check(
        "dispatch.idempotency_lifetime",
        lifetime >= Duration::from_secs(60),
        "must be at least 1m",
    )?;
    check("worker.max_in_flight", config.worker.max_in_flight >= 8, "must be at least 8")?;
    let jobs = config.worker.max_jobs;
    let holds_all =
        jobs == 0 || jobs >= config.queue.jobs() && jobs >= config.worker.max_in_flight as usize;
    check(
        "worker.max_jobs",
        holds_all,
        "must be 0, or at least queue.window times queue.shards and at least worker.max_in_flight",
    )?;
    check("worker.initial_window", config.worker.initial_window > 0, "must be at least 1")?;
    check("worker.slot_payload_bytes", config.worker.slot_payload_bytes > 0, "must be at least 1")?;
    check(
        "worker.window_memory",
        !config.worker.window_memory.0.is_zero(),
        "must be more than 0s",
    )?;
    check("worker.payload_reads", config.worker.payload_reads > 0, "must be at least 1")?;
    check(
        "worker.payload_bytes",
        config.worker.payload_bytes >= 8 * 1024,
        "must be at least 8192",
    )?;
    check(
        "worker.unreported_bytes",
        config.worker.unreported_bytes >= 8 * 1024,
        "must be at least 8192",
    )?;
    check("worker.read_batch", config.worker.read_batch > 0, "must be at least 1")?;
    check("ingest.validation_steps", config.ingest.validation_steps > 0, "must be at least 1")?;
    check("ingest.large_requests", config.ingest.large_requests > 0, "must be at least 1")?;
    check("ingest.long_validations", config.ingest.long_validations > 0, "must be at least 1")?;
    gateway::sizes(config)?;
    gateway::streams(config)?;
    let source = &config.egress.source_address;
    check(
        "egress.source_address",
        source.is_empty() || source.parse::<std::net::IpAddr>().is_ok(),
        "must be an IP address",
    )?;

    list("egress.allow", &config.egress.allow)?;
    list("egress.deny", &config.egress.deny)?;

    tls(config)?;
    gateway::public_limits(&config.gateway)?;
    for (key, listen) in [
        ("gateway.listen", &config.gateway.listen),
        ("ingest.listen", &config.ingest.listen),
        ("dispatch.listen", &config.dispatch.listen),
        ("admin.listen", &config.admin.listen),
        ("egress.listen", &config.egress.listen),
    ] {
        check(
            key,
            listen.parse::<SocketAddr>().is_ok(),
            "must be an address and a port, such as 127.0.0.1:8080",
        )?;
    }
    let operations = &config.operations.listen;
    check(
        "operations.listen",
        operations.is_empty() || operations.parse::<SocketAddr>().is_ok(),
        "must be an address and a port, or empty",
    )?;
    without_effect::refuse(config)
}

/// A list of destinations is bounded, and has nothing twice.
fn list(key: &'static str, targets: &[Target]) -> Result<(), Error> {
    check(
        key,
        targets.len() <= MAX_ENTRIES,
        &format!("must not have more than {MAX_ENTRIES} entries"),
    )?;
    for (at, target) in targets.iter().enumerate() {
        if let Some(first) = targets[..at].iter().position(|other| other == target) {
            return check(
                key,
                false,
                &format!("has {} twice, at {first} and at {at} (from 0)", target.0),
            );
        }
    }
    Ok(())
}

/// Files of TLS come together or not at all.
fn tls(config: &Config) -> Result<(), Error> {
    let (gateway, internal, queue) = (&config.gateway, &config.internal, &config.queue);
    let sets: [&[(&'static str, &String)]; 3] = [
        &[
            ("gateway.tls_certificate_file", &gateway.tls_certificate_file),
            ("gateway.tls_private_key_file", &gateway.tls_private_key_file),
        ],
        &[
            ("internal.tls_certificate_file", &internal.tls_certificate_file),
            ("internal.tls_private_key_file", &internal.tls_private_key_file),
            ("internal.tls_ca_file", &internal.tls_ca_file),
        ],
        &[
            ("queue.tls_certificate_file", &queue.tls_certificate_file),
            ("queue.tls_private_key_file", &queue.tls_private_key_file),
        ],
    ];
    for set in sets {
        if let Some((given, _)) = set.iter().find(|(_, path)| !path.is_empty()) {
            for (key, path) in set {
                check(key, !path.is_empty(), &format!("is required with {given}"))?;
            }
        }
    }
    let least = Duration::from_millis(100);
    check(
        "gateway.tls_reload_interval",
        gateway.tls_reload_interval.0 >= least,
        "must be at least 100ms",
    )?;
    check(
        "gateway.tls_handshake_timeout",
        gateway.tls_handshake_timeout.0 >= least,
        "must be at least 100ms",
    )?;
    check(
        "internal.tls_reload_interval",
        internal.tls_reload_interval.0 >= least,
        "must be at least 100ms",
    )
}

fn telemetry(telemetry: &Telemetry) -> Result<(), Error> {
    let endpoint = telemetry.otlp_endpoint.as_str();
    let http = endpoint.is_empty() || channel::parse(endpoint).is_ok();
    check(
        "telemetry.otlp_endpoint",
        http,
        "must be http://HOST:PORT or https://HOST:PORT with nothing after it, or empty",
    )?;
    check(
        "telemetry.otlp_timeout",
        telemetry.otlp_timeout.0 >= Duration::from_millis(100),
        "must be at least 100ms",
    )?;
    check(
        "telemetry.sample_ratio",
        (0.0..=1.0).contains(&telemetry.sample_ratio),
        "must be 0 to 1",
    )?;
    check("telemetry.export_queue", telemetry.export_queue > 0, "must be at least 1")?;
    check("telemetry.export_batch", telemetry.export_batch > 0, "must be at least 1")?;
    attributes(&telemetry.resource_attributes)
}

/// Attributes of the resource that have a key of their own, or that Outrider knows better.
const OWN_ATTRIBUTES: [(&str, &str); 3] = [
    ("service.name", "is given by telemetry.service_name"),
    ("service.version", "is set by Outrider"),
    ("process.pid", "is set by Outrider"),
];

fn attributes(given: &[String]) -> Result<(), Error> {
    let key = "telemetry.resource_attributes";
    let mut names = Vec::new();
    for attribute in given {
        let name = attribute.split_once('=').map(|(name, _)| name).filter(|name| !name.is_empty());
        let Some(name) = name else { return check(key, false, "must each be NAME=VALUE") };
        if let Some((_, why)) = OWN_ATTRIBUTES.iter().find(|(own, _)| *own == name) {
            return check(key, false, &format!("{name} {why}"));
        }
        check(key, !names.contains(&name), &format!("has {name} twice"))?;
        names.push(name);
    }
    Ok(())
}

fn check(key: &'static str, good: bool, message: &str) -> Result<(), Error> {
    if good { Ok(()) } else { Err(Error::Invalid { key, message: message.to_owned() }) }
}

#[cfg(test)]
mod tests;
