//! Rules between keys and limits of values, checked at start.

use std::{net::SocketAddr, time::Duration};

use outrider_model::limits;

use super::{Config, Error, Telemetry};

/// The first rule that is broken, by key.
pub fn validate(config: &Config) -> Result<(), Error> {
    let sqlite = config.database.url.starts_with("sqlite:");
    let embedded = config.queue.url == "embedded";
    let postgres = config.database.url.starts_with("postgres://") || config.database.url.starts_with("postgresql://");
    let redis = config.queue.url.starts_with("redis://") || config.queue.url.starts_with("rediss://");
    let longest_timeout = Duration::from_millis(limits::TIMEOUT_MILLIS.2);

    check("database.url", sqlite || postgres, "must begin with sqlite: or postgres://")?;
    check("queue.url", embedded || redis, "must be \"embedded\" or begin with redis://")?;
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
    check("queue.window_total", config.queue.window_total > 0, "must be at least 1")?;
    check("queue.window_per_project", config.queue.window_per_project > 0, "must be at least 1")?;
    check("database.max_connections", config.database.max_connections >= 4, "must be at least 4")?;
    check("database.ledger_connections", config.database.ledger_connections >= 4, "must be at least 4")?;
    check("log.format", ["text", "json"].contains(&config.log.format.as_str()), "must be \"text\" or \"json\"")?;
    telemetry(&config.telemetry)?;
    check("dispatch.measure_period", config.dispatch.measure_period.0 >= Duration::from_millis(100), "must be at least 100ms")?;
    check("dispatch.feed_period", config.dispatch.feed_period.0 >= Duration::from_millis(10), "must be at least 10ms")?;
    check("dispatch.check_after", config.dispatch.check_after.0 >= Duration::from_millis(100), "must be at least 100ms")?;
    check("dispatch.feed_batch", config.dispatch.feed_batch > 0, "must be at least 1")?;
    let heartbeat = (Duration::from_secs(1)..=Duration::from_secs(60)).contains(&config.dispatch.tail_heartbeat.0);
    check("dispatch.tail_heartbeat", heartbeat, "must be 1s to 60s")?;
    check("dispatch.tail_readers", config.dispatch.tail_readers > 0, "must be at least 1")?;
    check("dispatch.tail_poll", config.dispatch.tail_poll.0 >= Duration::from_millis(10), "must be at least 10ms")?;
    let day = Duration::from_secs(24 * 3600);
    check("dispatch.tail_retention", config.dispatch.tail_retention.0 >= day, "must be at least 24h")?;
    check("dispatch.accept_batch", config.dispatch.accept_batch > 0, "must be at least 1")?;
    check("dispatch.accept_queue", config.dispatch.accept_queue > 0, "must be at least 1")?;
    check("dispatch.settle_batch", config.dispatch.settle_batch > 0, "must be at least 1")?;
    check("worker.max_in_flight", config.worker.max_in_flight > 0, "must be at least 1")?;
    check("worker.read_batch", config.worker.read_batch > 0, "must be at least 1")?;
    let payload_fits = config.ingest.max_payload_bytes <= config.ingest.max_batch_bytes;
    check("ingest.max_payload_bytes", payload_fits, "must not be above ingest.max_batch_bytes")?;
    check("ingest.validation_steps", config.ingest.validation_steps > 0, "must be at least 1")?;
    check("ingest.long_validations", config.ingest.long_validations > 0, "must be at least 1")?;
    let batch_fits = config.ingest.max_batch_bytes <= config.gateway.max_request_bytes;
    check("ingest.max_batch_bytes", batch_fits, "must not be above gateway.max_request_bytes")?;
    let source = &config.egress.source_address;
    check("egress.source_address", source.is_empty() || source.parse::<std::net::IpAddr>().is_ok(), "must be an IP address")?;

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

fn check(key: &'static str, good: bool, message: &str) -> Result<(), Error> {
    if good { Ok(()) } else { Err(Error::Invalid { key, message: message.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_impossible_pairs_are_not() {
        assert!(validate(&Config::default()).is_ok());
        let mut config = Config::default();
        config.queue.url = "redis://127.0.0.1/".into();
        assert!(validate(&config).unwrap_err().to_string().contains("queue.url"));
        config.database.url = "postgres://localhost/x".into();
        assert!(validate(&config).is_ok());
        config.telemetry.sample_ratio = f64::NAN;
        assert!(validate(&config).unwrap_err().to_string().contains("telemetry.sample_ratio"));
        config.telemetry.sample_ratio = 0.0;
        config.gateway.listen = "8080".into();
        assert!(validate(&config).unwrap_err().to_string().contains("gateway.listen"));
    }
}
