//! Refuses settings that have no effect because of the value of another setting. Whoever sets one
//! expects an effect.
//!
//! A value that equals the default cannot be distinguished from one that is not given, and changes
//! nothing. Keys of roles that a process does not have are accepted, because one file may serve all
//! processes.

use outrider_settings::Invalid;
use toml::Table;

use super::{aggregate::Config, keys::leaves};

/// Keys, and the condition under which they have an effect.
struct Rule {
    holds: fn(&Config) -> bool,
    /// The condition, which follows "has no effect without".
    without: &'static str,
    keys: &'static [&'static str],
}

const RULES: [Rule; 6] = [
    Rule {
        holds: |config| !config.queue.is_embedded(),
        without: "a queue.url of Redis",
        keys: &[
            "queue.cluster",
            "queue.prefix",
            "queue.shards",
            "queue.pool_size",
            "queue.command_timeout",
            "queue.batch_jobs",
            "queue.batch_bytes",
        ],
    },
    Rule {
        holds: |config| config.queue.url.starts_with("rediss://"),
        without: "a queue.url that begins with rediss://",
        keys: &["queue.tls_ca_file", "queue.tls_certificate_file", "queue.tls_private_key_file"],
    },
    Rule {
        holds: |config| !config.database.url.starts_with("sqlite:"),
        without: "a database.url of PostgreSQL",
        keys: &["database.ledger_connections", "database.statement_timeout"],
    },
    Rule {
        holds: |config| !config.telemetry.otlp_endpoint.is_empty(),
        without: "telemetry.otlp_endpoint",
        keys: &[
            "telemetry.otlp_timeout",
            "telemetry.sample_ratio",
            "telemetry.service_name",
            "telemetry.resource_attributes",
            "telemetry.export_queue",
            "telemetry.export_batch",
            "telemetry.export_period",
        ],
    },
    Rule {
        holds: |config| !config.gateway.tls_certificate_file.is_empty(),
        without: "gateway.tls_certificate_file",
        keys: &[
            "gateway.tls_private_key_file",
            "gateway.tls_reload_interval",
            "gateway.tls_handshake_timeout",
        ],
    },
    Rule {
        holds: |config| !config.internal.tls_certificate_file.is_empty(),
        without: "internal.tls_certificate_file",
        keys: &[
            "internal.tls_private_key_file",
            "internal.tls_ca_file",
            "internal.tls_reload_interval",
        ],
    },
];

/// Fails with the first key that is given and has no effect.
pub fn refuse(config: &Config) -> Result<(), Invalid> {
    let given = given(config);
    for rule in RULES.iter().filter(|rule| !(rule.holds)(config)) {
        if let Some(key) = rule.keys.iter().find(|key| given.iter().any(|given| given == *key)) {
            let why = format!("has no effect without {}", rule.without);
            return Err(Invalid::new(*key, why));
        }
    }
    Ok(())
}

/// Returns the keys that differ from their defaults.
fn given(config: &Config) -> Vec<String> {
    let leaves =
        |config: &Config| Table::try_from(config).map(|table| leaves(&table)).unwrap_or_default();
    let defaults = leaves(&Config::default());
    leaves(config).into_iter().filter(|leaf| !defaults.contains(leaf)).map(|(key, _)| key).collect()
}

/// Keys that depend on others, each with settings under which it has an effect.
#[cfg(test)]
pub const CONDITIONS: &[(&str, &[&str])] = &[
    ("queue.tls_", &["database.url=postgres://h/d", "queue.url=rediss://h/0"]),
    ("queue.", &["database.url=postgres://h/d", "queue.url=redis://h/0"]),
    ("database.ledger_connections", &["database.url=postgres://h/d"]),
    ("database.statement_timeout", &["database.url=postgres://h/d"]),
    ("telemetry.", &["telemetry.otlp_endpoint=http://collector:4317"]),
    ("gateway.tls_", &["gateway.tls_certificate_file=c.pem", "gateway.tls_private_key_file=k.pem"]),
    (
        "internal.tls_",
        &[
            "internal.tls_certificate_file=c.pem",
            "internal.tls_private_key_file=k.pem",
            "internal.tls_ca_file=a.pem",
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::sources::Sources;

    /// For each key, a value that is not the default.
    const VALUES: &[(&str, &str)] = &[
        ("queue.cluster", "true"),
        ("queue.prefix", "p"),
        ("queue.shards", "2"),
        ("queue.pool_size", "9"),
        ("queue.command_timeout", "3s"),
        ("queue.batch_jobs", "9"),
        ("queue.batch_bytes", "9"),
        ("queue.tls_ca_file", "ca.pem"),
        ("queue.tls_certificate_file", "c.pem"),
        ("queue.tls_private_key_file", "k.pem"),
        ("database.ledger_connections", "9"),
        ("database.statement_timeout", "11s"),
        ("telemetry.otlp_timeout", "9s"),
        ("telemetry.sample_ratio", "0.5"),
        ("telemetry.service_name", "x"),
        ("telemetry.resource_attributes", "a=b"),
        ("telemetry.export_queue", "9"),
        ("telemetry.export_batch", "9"),
        ("telemetry.export_period", "9s"),
        ("gateway.tls_private_key_file", "k.pem"),
        ("gateway.tls_reload_interval", "9s"),
        ("gateway.tls_handshake_timeout", "9s"),
        ("internal.tls_private_key_file", "k.pem"),
        ("internal.tls_ca_file", "a.pem"),
        ("internal.tls_reload_interval", "9s"),
    ];

    fn load(flags: &[&str]) -> Result<Config, String> {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Sources { flags, ..Sources::default() }.load().map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_whose_condition_is_false_is_refused_and_is_taken_where_it_holds() {
        let ruled: Vec<&str> = RULES.iter().flat_map(|rule| rule.keys).copied().collect();
        for key in &ruled {
            let (_, value) = VALUES
                .iter()
                .find(|(known, _)| known == key)
                .unwrap_or_else(|| panic!("a value of {key}"));
            let flag = format!("{key}={value}");
            let error = load(&[&flag]).unwrap_err();
            // The rule that TLS files are given together is checked first.
            let of_files = error.contains("is required with");
            assert!(
                of_files || error.starts_with(&format!("{key}: has no effect without ")),
                "{error}"
            );
            let (_, conditions) =
                CONDITIONS.iter().find(|(prefix, _)| key.starts_with(prefix)).unwrap();
            let mut flags: Vec<&str> = conditions
                .iter()
                .copied()
                .filter(|given| !given.starts_with(&format!("{key}=")))
                .collect();
            flags.push(&flag);
            if key.starts_with("queue.tls_") && *key != "queue.tls_ca_file" {
                let pair = ["queue.tls_certificate_file=c.pem", "queue.tls_private_key_file=k.pem"];
                flags.extend(pair.into_iter().filter(|other| !other.starts_with(key)));
            }
            load(&flags).unwrap_or_else(|error| panic!("{key}: {error}"));
        }
        assert_eq!(ruled.len(), VALUES.len());
    }

    #[test]
    fn a_default_that_is_written_down_is_taken() {
        assert!(load(&["queue.prefix=outrider", "telemetry.sample_ratio=1"]).is_ok());
    }
}
