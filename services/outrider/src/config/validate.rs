//! Rules between keys and limits of values, checked at start.

use std::{net::SocketAddr, time::Duration};

use outrider_model::{address::MAX_ENTRIES, limits};
use outrider_store::{Backend, check_url};

use super::{Config, Error, Gateway, Target, Telemetry};

/// The first rule that is broken, by key.
pub fn validate(config: &Config) -> Result<(), Error> {
    let backend = Backend::of(&config.database.url);
    let sqlite = backend == Some(Backend::Sqlite);
    let embedded = config.queue.url == "embedded";
    let redis = config.queue.url.starts_with("redis://") || config.queue.url.starts_with("rediss://");
    let longest_timeout = Duration::from_millis(limits::TIMEOUT_MILLIS.2);

    check_url(&config.database.url).map_err(|message| Error::Invalid { key: "database.url", message })?;
    check("queue.url", embedded || redis, "must be \"embedded\" or begin with redis:// or rediss://")?;
    check(
        "queue.url",
        !sqlite || embedded,
        "must be \"embedded\" with SQLite, whose one process holds everything; Redis needs PostgreSQL",
    )?;
    check("queue.shards", (1..=256).contains(&config.queue.shards), "must be 1 to 256")?;
    check("queue.lease", config.queue.lease.0 >= Duration::from_secs(1), "must be at least 1s")?;
    if config.queue.lease.0 <= longest_timeout {
        tracing::warn!(lease = %config.queue.lease, "queue.lease is not above 30s, the longest timeout of an endpoint: it holds by renewal only");
    }
    check("queue.window", config.queue.window >= 8, "must be at least 8")?;
    for (key, time) in [
        ("database.acquire_timeout", config.database.acquire_timeout.0),
        ("database.statement_timeout", config.database.statement_timeout.0),
    ] {
        check(key, time >= Duration::from_millis(100), "must be at least 100ms")?;
    }
    check("database.max_connections", config.database.max_connections >= 4, "must be at least 4")?;
    check("database.ledger_connections", config.database.ledger_connections >= 4, "must be at least 4")?;
    check("log.format", ["text", "json"].contains(&config.log.format.as_str()), "must be \"text\" or \"json\"")?;
    telemetry(&config.telemetry)?;
    check("dispatch.measure_period", config.dispatch.measure_period.0 >= Duration::from_millis(100), "must be at least 100ms")?;
    check("dispatch.audit_period", config.dispatch.audit_period.0 >= Duration::from_millis(100), "must be at least 100ms")?;
    check("dispatch.audit_grace", config.dispatch.audit_grace.0 >= Duration::from_secs(1), "must be at least 1s")?;
    check("dispatch.audit_batch", config.dispatch.audit_batch > 0, "must be at least 1")?;
    check("dispatch.feed_period", config.dispatch.feed_period.0 >= Duration::from_millis(10), "must be at least 10ms")?;
    check("dispatch.check_after", config.dispatch.check_after.0 >= Duration::from_secs(1), "must be at least 1s")?;
    check("dispatch.feed_batch", config.dispatch.feed_batch > 0, "must be at least 1")?;
    let heartbeat = (Duration::from_secs(1)..=Duration::from_secs(60)).contains(&config.dispatch.tail_heartbeat.0);
    check("dispatch.tail_heartbeat", heartbeat, "must be 1s to 60s")?;
    check("dispatch.tail_readers", config.dispatch.tail_readers > 0, "must be at least 1")?;
    check("dispatch.tail_buffer_bytes", config.dispatch.tail_buffer_bytes >= 1024 * 1024, "must be at least 1048576")?;
    check("dispatch.tail_poll", config.dispatch.tail_poll.0 >= Duration::from_millis(10), "must be at least 10ms")?;
    let day = Duration::from_secs(24 * 3600);
    check("dispatch.tail_retention", config.dispatch.tail_retention.0 >= day, "must be at least 24h")?;
    for (key, kept) in
        [("dispatch.retention", config.dispatch.retention.0), ("dispatch.change_retention", config.dispatch.change_retention.0)]
    {
        check(key, kept.is_zero() || kept >= day, "must be at least 24h, or 0s for ever")?;
    }
    check("dispatch.sweep_period", config.dispatch.sweep_period.0 >= Duration::from_millis(100), "must be at least 100ms")?;
    check("dispatch.accept_batch", config.dispatch.accept_batch > 0, "must be at least 1")?;
    check("dispatch.accept_queue", config.dispatch.accept_queue > 0, "must be at least 1")?;
    check("dispatch.settle_batch", config.dispatch.settle_batch > 0, "must be at least 1")?;
    check("dispatch.accept_lanes", config.dispatch.accept_lanes > 0, "must be at least 1")?;
    check("dispatch.settle_lanes", config.dispatch.settle_lanes > 0, "must be at least 1")?;
    let lifetime = config.dispatch.idempotency_lifetime.0;
    check("dispatch.idempotency_lifetime", lifetime >= Duration::from_secs(60), "must be at least 1m")?;
    check("worker.max_in_flight", config.worker.max_in_flight >= 8, "must be at least 8")?;
    let holds_all = config.worker.max_jobs == 0 || config.worker.max_jobs >= config.queue.jobs();
    check("worker.max_jobs", holds_all, "must be 0 or at least queue.window times queue.shards")?;
    check("worker.initial_window", config.worker.initial_window > 0, "must be at least 1")?;
    check("worker.slot_payload_bytes", config.worker.slot_payload_bytes > 0, "must be at least 1")?;
    check("worker.window_memory", !config.worker.window_memory.0.is_zero(), "must be more than 0s")?;
    check("worker.payload_reads", config.worker.payload_reads > 0, "must be at least 1")?;
    check("worker.payload_bytes", config.worker.payload_bytes >= 8 * 1024, "must be at least 8192")?;
    check("worker.unreported_bytes", config.worker.unreported_bytes >= 8 * 1024, "must be at least 8192")?;
    check("worker.read_batch", config.worker.read_batch > 0, "must be at least 1")?;
    let payload_fits = config.ingest.max_payload_bytes <= config.ingest.max_batch_bytes;
    check("ingest.max_payload_bytes", payload_fits, "must not be above ingest.max_batch_bytes")?;
    check("ingest.validation_steps", config.ingest.validation_steps > 0, "must be at least 1")?;
    check("ingest.large_requests", config.ingest.large_requests > 0, "must be at least 1")?;
    check("ingest.long_validations", config.ingest.long_validations > 0, "must be at least 1")?;
    let batch_fits = config.ingest.max_batch_bytes <= config.gateway.max_request_bytes;
    check("ingest.max_batch_bytes", batch_fits, "must not be above gateway.max_request_bytes")?;
    check_streams(config)?;
    let source = &config.egress.source_address;
    check("egress.source_address", source.is_empty() || source.parse::<std::net::IpAddr>().is_ok(), "must be an IP address")?;

    list("egress.allow", &config.egress.allow)?;
    list("egress.deny", &config.egress.deny)?;

    tls(config)?;
    public_limits(&config.gateway)?;
    for (key, listen) in [
        ("gateway.listen", &config.gateway.listen),
        ("ingest.listen", &config.ingest.listen),
        ("dispatch.listen", &config.dispatch.listen),
        ("admin.listen", &config.admin.listen),
        ("egress.listen", &config.egress.listen),
    ] {
        check(key, listen.parse::<SocketAddr>().is_ok(), "must be an address and a port, such as 127.0.0.1:8080")?;
    }
    let operations = &config.operations.listen;
    check(
        "operations.listen",
        operations.is_empty() || operations.parse::<SocketAddr>().is_ok(),
        "must be an address and a port, or empty",
    )
}

/// A list of destinations is bounded, and has nothing twice.
fn list(key: &'static str, targets: &[Target]) -> Result<(), Error> {
    check(key, targets.len() <= MAX_ENTRIES, &format!("must not have more than {MAX_ENTRIES} entries"))?;
    for (at, target) in targets.iter().enumerate() {
        if let Some(first) = targets[..at].iter().position(|other| other == target) {
            return check(key, false, &format!("has {} twice, at {first} and at {at} (from 0)", target.0));
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
    let secure = queue.url.starts_with("rediss://");
    for (key, path) in [("queue.tls_ca_file", &queue.tls_ca_file), ("queue.tls_certificate_file", &queue.tls_certificate_file)] {
        check(key, path.is_empty() || secure, "is for a queue.url that begins with rediss://")?;
    }
    let least = Duration::from_millis(100);
    check("gateway.tls_reload_interval", gateway.tls_reload_interval.0 >= least, "must be at least 100ms")?;
    check("gateway.tls_handshake_timeout", gateway.tls_handshake_timeout.0 >= least, "must be at least 100ms")?;
    check("internal.tls_reload_interval", internal.tls_reload_interval.0 >= least, "must be at least 100ms")
}

fn public_limits(gateway: &Gateway) -> Result<(), Error> {
    check("gateway.max_connections", gateway.max_connections > 0, "must be at least 1")?;
    check("gateway.max_header_bytes", (8_192..=1 << 20).contains(&gateway.max_header_bytes), "must be 8192 to 1048576")?;
    check("gateway.max_headers", (1..=1_000).contains(&gateway.max_headers), "must be 1 to 1000")?;
    check("gateway.max_uri_bytes", (256..=65_534).contains(&gateway.max_uri_bytes), "must be 256 to 65534")?;
    check("gateway.max_concurrent_streams", gateway.max_concurrent_streams > 0, "must be at least 1")?;
    check("gateway.max_pending_resets", gateway.max_pending_resets > 0, "must be at least 1")?;
    check("gateway.max_error_resets", gateway.max_error_resets > 0, "must be at least 1")?;
    check("gateway.max_abandoned_requests", gateway.max_abandoned_requests > 0, "must be at least 1")?;
    let fits = gateway.max_decoded_bytes >= gateway.max_request_bytes;
    check("gateway.max_decoded_bytes", fits, "must not be below gateway.max_request_bytes")?;
    check("gateway.max_decodings", gateway.max_decodings > 0, "must be at least 1")?;
    let lifetime = gateway.key_lifetime.0;
    let in_bounds = (Duration::from_millis(100)..=Duration::from_secs(60)).contains(&lifetime);
    check("gateway.key_lifetime", in_bounds, "must be 100ms to 60s")?;
    check("gateway.max_valid_keys", gateway.max_valid_keys > 0, "must be at least 1")?;
    check("gateway.max_invalid_keys", gateway.max_invalid_keys > 0, "must be at least 1")?;
    check("gateway.key_questions", gateway.key_questions > 0, "must be at least 1")?;
    for (key, span) in [
        ("gateway.request_timeout", gateway.request_timeout),
        ("gateway.header_read_timeout", gateway.header_read_timeout),
        ("gateway.idle_timeout", gateway.idle_timeout),
        ("gateway.keep_alive_interval", gateway.keep_alive_interval),
        ("gateway.keep_alive_timeout", gateway.keep_alive_timeout),
    ] {
        check(key, span.0 >= Duration::from_millis(100), "must be at least 100ms")?;
    }
    let pinged = gateway.keep_alive_interval.0 < gateway.idle_timeout.0;
    check("gateway.keep_alive_interval", pinged, "must be below gateway.idle_timeout, so that quiet streams are not cut")
}

fn telemetry(telemetry: &Telemetry) -> Result<(), Error> {
    let endpoint = telemetry.otlp_endpoint.as_str();
    let http = endpoint.is_empty() || endpoint.starts_with("http://") || endpoint.starts_with("https://");
    check("telemetry.otlp_endpoint", http, "must be http://HOST:PORT or https://HOST:PORT, or empty")?;
    check("telemetry.otlp_timeout", telemetry.otlp_timeout.0 >= Duration::from_millis(100), "must be at least 100ms")?;
    check("telemetry.sample_ratio", (0.0..=1.0).contains(&telemetry.sample_ratio), "must be 0 to 1")?;
    check("telemetry.export_queue", telemetry.export_queue > 0, "must be at least 1")?;
    check("telemetry.export_batch", telemetry.export_batch > 0, "must be at least 1")?;
    let named = |attribute: &String| attribute.split_once('=').is_some_and(|(name, _)| !name.is_empty());
    check("telemetry.resource_attributes", telemetry.resource_attributes.iter().all(named), "must each be NAME=VALUE")
}

/// Streams of events and uploads.
fn check_streams(config: &Config) -> Result<(), Error> {
    check("ingest.max_streams", config.ingest.max_streams > 0, "must be at least 1")?;
    check("ingest.stream_window_events", config.ingest.stream_window_events > 0, "must be at least 1")?;
    check("ingest.stream_window_bytes", config.ingest.stream_window_bytes > 0, "must be at least 1")?;
    check("ingest.stream_buffer_bytes", config.ingest.stream_buffer_bytes > 0, "must be at least 1")?;
    let idle = config.ingest.stream_idle_timeout.0;
    check("ingest.stream_idle_timeout", idle >= Duration::from_secs(1), "must be at least 1s")?;
    check("gateway.max_uploads", config.gateway.max_uploads > 0, "must be at least 1")?;
    let idle = config.gateway.upload_idle_timeout.0;
    let in_bounds = (Duration::from_secs(1)..=Duration::from_secs(60)).contains(&idle);
    check("gateway.upload_idle_timeout", in_bounds, "must be 1s to 60s")
}

fn check(key: &'static str, good: bool, message: &str) -> Result<(), Error> {
    if good { Ok(()) } else { Err(Error::Invalid { key, message: message.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Span;

    #[test]
    fn the_defaults_are_valid_and_impossible_pairs_are_not() {
        assert!(validate(&Config::default()).is_ok());
        let mut config = Config::default();
        config.queue.url = "redis://127.0.0.1/".into();
        assert!(validate(&config).unwrap_err().to_string().contains("queue.url"));
        config.database.url = "postgres://localhost/x".into();
        assert!(validate(&config).is_ok());
        config.database.url = "host=a,b dbname=x password='hunter2' traget_session_attrs=any".into();
        let why = validate(&config).unwrap_err().to_string();
        assert!(why.starts_with("database.url: ") && why.contains("did you mean target_session_attrs?"), "{why}");
        assert!(!why.contains("hunter2"));
        config.database.url = "host=a,b dbname=x".into();
        assert!(validate(&config).is_ok());
        config.telemetry.sample_ratio = f64::NAN;
        assert!(validate(&config).unwrap_err().to_string().contains("telemetry.sample_ratio"));
        config.telemetry.sample_ratio = 0.0;
        config.gateway.listen = "8080".into();
        assert!(validate(&config).unwrap_err().to_string().contains("gateway.listen"));
    }

    #[test]
    fn history_is_kept_for_a_day_at_least_or_for_ever() {
        let kept = |hours: u64| {
            let mut config = Config::default();
            config.dispatch.retention = Span::seconds(hours * 3_600);
            validate(&config).map_err(|error| error.to_string())
        };
        assert!(kept(0).is_ok() && kept(24).is_ok());
        assert!(kept(23).unwrap_err().starts_with("dispatch.retention: "));
    }

    #[test]
    fn files_of_tls_come_together() {
        let invalid = |change: &dyn Fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            validate(&config).unwrap_err().to_string()
        };
        let alone = invalid(&|config| config.gateway.tls_private_key_file = "key.pem".into());
        assert!(alone.starts_with("gateway.tls_certificate_file: ") && alone.contains("gateway.tls_private_key_file"), "{alone}");
        let no_authority = invalid(&|config| {
            config.internal.tls_certificate_file = "crt.pem".into();
            config.internal.tls_private_key_file = "key.pem".into();
        });
        assert!(no_authority.starts_with("internal.tls_ca_file: "), "{no_authority}");
        let plain = invalid(&|config| config.queue.tls_ca_file = "ca.pem".into());
        assert!(plain.starts_with("queue.tls_ca_file: ") && plain.contains("rediss://"), "{plain}");
    }

    #[test]
    fn lists_of_destinations_are_bounded_and_have_nothing_twice() {
        let list = |texts: Vec<String>| {
            let mut config = Config::default();
            config.egress.deny = texts.iter().map(|text| Target(text.parse().unwrap())).collect();
            validate(&config).map_err(|error| error.to_string())
        };
        let many = |count: usize| (0..count).map(|number| format!("n{number}.example")).collect::<Vec<_>>();
        assert!(list(many(1_000)).is_ok());
        assert_eq!(list(many(1_001)).unwrap_err(), "egress.deny: must not have more than 1000 entries");
        let twice = list(vec!["10.0.0.1".into(), "x.example".into(), "10.0.0.1/32".into()]).unwrap_err();
        assert_eq!(twice, "egress.deny: has 10.0.0.1 twice, at 0 and at 2 (from 0)");
    }
}
