//! Checks the rules between sections. Each section checks its own rules.

use outrider_rpc::channel;
use outrider_settings::{Invalid, MIB};
use outrider_store::Backend;

use super::{aggregate::Config, without_effect};

/// Fails with the first rule that is broken, by key.
pub fn validate(config: &Config) -> Result<(), Invalid> {
    config.check_sections()?;
    let sqlite = Backend::of(&config.database.url) == Some(Backend::Sqlite);
    Invalid::unless(
        !sqlite || config.queue.is_embedded(),
        "queue.url",
        "must be \"embedded\" with SQLite, whose one process has all roles; Redis needs PostgreSQL",
    )?;
    // The worker checks this against its slots.
    let jobs = config.worker.max_jobs;
    Invalid::unless(
        jobs == 0 || jobs >= config.queue.jobs(),
        "worker.max_jobs",
        "must be 0, or at least worker.max_in_flight and queue.window times queue.shards",
    )?;
    let collector = config.telemetry.otlp_endpoint.as_str();
    Invalid::unless(
        collector.is_empty() || channel::parse(collector).is_ok(),
        "telemetry.otlp_endpoint",
        "must be http://HOST:PORT or https://HOST:PORT with nothing after it, or empty",
    )?;
    sizes(config)?;
    without_effect::refuse(config)
}

/// Checks that accepted requests can pass between roles, and that their data can be read again.
fn sizes(config: &Config) -> Result<(), Invalid> {
    let Config { gateway, ingest, .. } = config;
    Invalid::unless(
        ingest.max_batch_bytes <= gateway.max_request_bytes,
        "ingest.max_batch_bytes",
        "must not be above gateway.max_request_bytes",
    )?;
    // As base64 in JSON, with everything that an event has besides its payload.
    let shown = ingest.max_payload_bytes / 3 * 4 + MIB;
    Invalid::unless(
        shown <= gateway.max_unsent_bytes / 4,
        "gateway.max_unsent_bytes",
        "must be at least four times ingest.max_payload_bytes as base64, and 4 MiB: \
         otherwise an event of that size is never shown",
    )
}

#[cfg(test)]
mod tests {
    use outrider_settings::{Parsed, hours, seconds};

    use super::*;

    fn refused(change: impl FnOnce(&mut Config)) -> Option<String> {
        let mut config = Config::default();
        change(&mut config);
        validate(&config).err().map(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_valid_and_impossible_pairs_are_not() {
        assert!(validate(&Config::default()).is_ok());
        let mut config = Config::default();
        config.queue.url = "redis://127.0.0.1/".into();
        assert!(validate(&config).unwrap_err().to_string().contains("queue.url"));
        config.database.url = "postgres://localhost/x".into();
        assert!(validate(&config).is_ok());
        config.database.url =
            "host=a,b dbname=x password='hunter2' traget_session_attrs=any".into();
        let why = validate(&config).unwrap_err().to_string();
        assert!(
            why.starts_with("database.url: ") && why.contains("did you mean target_session_attrs?"),
            "{why}"
        );
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
        let kept = |kept| refused(|config| config.dispatch.retention = kept);
        assert!(kept(seconds(0)).is_none() && kept(hours(24)).is_none());
        assert!(kept(hours(23)).unwrap().starts_with("dispatch.retention: "));
    }

    #[test]
    fn a_worker_has_room_for_all_jobs_of_the_queue() {
        for (jobs, fine) in [(0, true), (32_767, false), (32_768, true)] {
            let refused = refused(|config| config.worker.max_jobs = jobs);
            assert_eq!(refused.is_none(), fine, "{jobs}: {refused:?}");
        }
    }

    #[test]
    fn sizes_fit_each_other() {
        let payload = refused(|config| config.ingest.max_payload_bytes = 5 * MIB).unwrap();
        assert!(payload.starts_with("ingest.max_payload_bytes: "), "{payload}");
        let batch = refused(|config| config.ingest.max_batch_bytes = 7 * MIB).unwrap();
        assert!(batch.starts_with("ingest.max_batch_bytes: "), "{batch}");
        let unsent = refused(|config| config.gateway.max_unsent_bytes = 9 * MIB).unwrap();
        assert!(unsent.starts_with("gateway.max_unsent_bytes: "), "{unsent}");
    }

    #[test]
    fn files_of_tls_come_together() {
        let alone = refused(|config| config.gateway.tls_private_key_file = "key.pem".into());
        let alone = alone.unwrap();
        assert!(
            alone.starts_with("gateway.tls_certificate_file: ")
                && alone.contains("gateway.tls_private_key_file"),
            "{alone}"
        );
        let no_authority = refused(|config| {
            config.internal.tls_certificate_file = "crt.pem".into();
            config.internal.tls_private_key_file = "key.pem".into();
        });
        let no_authority = no_authority.unwrap();
        assert!(no_authority.starts_with("internal.tls_ca_file: "), "{no_authority}");
        let plain = refused(|config| config.queue.tls_ca_file = "ca.pem".into()).unwrap();
        assert!(plain.starts_with("queue.tls_ca_file: ") && plain.contains("rediss://"), "{plain}");
    }

    #[test]
    fn lists_of_destinations_are_bounded_and_have_nothing_twice() {
        let list = |texts: Vec<String>| {
            let entries = texts.iter().map(|text| Parsed(text.parse().unwrap())).collect();
            refused(|config| config.egress.deny = entries)
        };
        let many = |count: usize| (0..count).map(|number| format!("n{number}.example")).collect();
        assert_eq!(list(many(1_000)), None);
        assert_eq!(list(many(1_001)).unwrap(), "egress.deny: must not have more than 1000 entries");
        let twice = list(vec!["10.0.0.1".into(), "x.example".into(), "10.0.0.1/32".into()]);
        assert_eq!(twice.unwrap(), "egress.deny: has 10.0.0.1 twice, at 0 and at 2 (from 0)");
    }
}
