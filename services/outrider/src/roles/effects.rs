//! Checks that every key of the configuration has an effect: the process derives something from it,
//! the code of its role reads it, or a test that is named here observes it. A new key that nothing
//! reads fails here.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use toml::{Table, Value};

use super::{check, dispatch, foundation, gateway, messages::Messages, tls, worker};
use crate::config::{CONDITIONS, Config, Sources, leaves};

/// In this test every process has ports of its own, so each of these settings must be honored.
const SIX_PROCESSES: &str = "every_metric_is_shown_and_moves_over_six_processes";

/// Keys that a test observes from outside, with the test.
const OBSERVED: &[(&str, &str)] = &[
    ("database.url", "rest_delivers_the_very_text"),
    ("queue.url", "a_right_is_lost_and_granted_in_six_processes"),
    ("queue.tls_ca_file", "everything_by_tls"),
    ("queue.tls_certificate_file", "everything_by_tls"),
    ("queue.tls_private_key_file", "everything_by_tls"),
    ("operations.listen", SIX_PROCESSES),
    ("gateway.listen", SIX_PROCESSES),
    ("gateway.ingest_url", SIX_PROCESSES),
    ("gateway.dispatch_url", SIX_PROCESSES),
    ("gateway.admin_url", SIX_PROCESSES),
    ("ingest.listen", SIX_PROCESSES),
    ("ingest.dispatch_url", SIX_PROCESSES),
    ("dispatch.listen", SIX_PROCESSES),
    ("admin.listen", SIX_PROCESSES),
    ("worker.dispatch_url", SIX_PROCESSES),
    ("worker.egress_address", SIX_PROCESSES),
    ("worker.extra_roots_file", "certificates_in_the_trust_file_are_trusted_themselves"),
    ("egress.listen", SIX_PROCESSES),
];

/// Values for keys whose non-default value cannot be derived from the default.
const VALUES: &[(&str, &str)] = &[
    ("queue.prefix", "other"),
    ("internal.token", "0123456789abcdef0123456789abcdef"),
    ("internal.tls_certificate_file", "other.pem"),
    ("internal.tls_private_key_file", "other.pem"),
    ("internal.tls_ca_file", "other.pem"),
    ("log.format", "json"),
    ("log.level", "debug"),
    ("telemetry.otlp_endpoint", "http://other:4317"),
    ("telemetry.service_name", "other"),
    ("telemetry.resource_attributes", "a=b"),
    ("gateway.tls_certificate_file", "other.pem"),
    ("gateway.tls_private_key_file", "other.pem"),
    ("gateway.cors_origins", "https://app.example.com"),
    ("dispatch.retry_schedule", "7s"),
    ("worker.max_jobs", "50000"),
    ("worker.reclaim_period", "7s"),
    ("egress.allowed_ports", "22"),
    ("egress.allow", "10.0.0.7"),
    ("egress.deny", "10.0.0.8"),
    ("egress.source_address", "127.0.0.1"),
];

fn load(flags: &[String]) -> Config {
    let sources = Sources { flags: flags.to_vec(), ..Sources::default() };
    sources.load().unwrap_or_else(|error| panic!("{flags:?}: {error}"))
}

/// Returns everything that the process derives from the configuration, as text.
fn derived(config: &Config) -> BTreeMap<&'static str, String> {
    let key = foundation::store_options(config).map(|options| options.master_keys);
    let worker = outrider_worker::Given { consumer: String::new(), ..worker::given(config) };
    BTreeMap::from([
        ("master key", format!("{:?}", key.ok())),
        ("token", foundation::internal_token(&config.internal).unwrap().is_some().to_string()),
        ("TLS between roles", format!("{:?}", tls::internal_options(&config.internal))),
        ("public TLS", format!("{:?}", tls::public_options(&config.gateway))),
        ("key cache", format!("{:?}", config.gateway.key_cache())),
        ("gateway", format!("{:?}", gateway::given(config))),
        ("uploads", gateway::options(config).upload_batch_bytes.to_string()),
        ("dispatch", format!("{:?}", dispatch::given(config))),
        ("messages", format!("{:?}", Messages::of(config))),
        ("worker", format!("{worker:?}")),
        ("policy", format!("{:?}", config.egress.policy())),
    ])
}

/// Returns the crate whose code reads a section.
fn reader(section: &str) -> &str {
    match section {
        "database" | "directory" => "store",
        "log" => "telemetry",
        "secrets" | "internal" | "operations" => "outrider",
        role => role,
    }
}

/// Returns the code that may read settings, without tests, declarations and checks.
fn code(krate: &str) -> String {
    let services = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut left: Vec<PathBuf> =
        [krate, "outrider"].map(|name| services.join(name).join("src")).into();
    let mut code = String::new();
    while let Some(path) = left.pop() {
        let is_test = path.file_stem().is_some_and(|name| name == "tests" || name == "effects");
        if is_test || path.ends_with("outrider/src/config") {
            continue;
        }
        if path.is_dir() {
            left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = fs::read_to_string(path).unwrap();
        let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let mut is_rule = false;
        for line in text.lines() {
            is_rule |= line.starts_with("fn ") && line.contains("rules(");
            if !is_rule && !line.trim_start().starts_with("//") {
                code.push_str(line);
                code.push('\n');
            }
            is_rule &= line != "}";
        }
    }
    code
}

/// Whether code reads a field: as `.name`, or by destructuring `Options`.
fn is_read(code: &str, name: &str) -> bool {
    let is_word = |next: char| next.is_ascii_alphanumeric() || next == '_' || next == '(';
    let taken = code.split("let Options {").skip(1).filter_map(|rest| rest.split('}').next());
    code.match_indices(&format!(".{name}"))
        .any(|(at, found)| !code[at + found.len()..].starts_with(is_word))
        || taken.into_iter().any(|names| names.contains(&format!(" {name}: ")))
}

/// Returns a value of a key that is not its default.
fn another(key: &str, default: &Value) -> String {
    if let Some((_, value)) = VALUES.iter().find(|(known, _)| *known == key) {
        return (*value).to_owned();
    }
    match default {
        Value::Integer(number) => (number + 1).to_string(),
        Value::Float(number) => (number / 2.0).to_string(),
        Value::Boolean(value) => (!value).to_string(),
        Value::String(text) => match humantime::parse_duration(text) {
            // Smaller, because some keys have a maximum.
            Ok(length) => format!("{}ms", length.as_millis() - 1),
            Err(_) => panic!("{key} needs a value that is not its default"),
        },
        _ => panic!("{key} needs a value that is not its default"),
    }
}

/// Returns the settings under which a key has an effect.
fn conditions(key: &str) -> Vec<String> {
    let of_key = CONDITIONS.iter().find(|(prefix, _)| key.starts_with(prefix));
    of_key.into_iter().flat_map(|(_, flags)| *flags).map(|flag| (*flag).to_owned()).collect()
}

#[test]
fn every_key_has_an_effect() {
    let mut codes = BTreeMap::new();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("master.key");
    fs::write(&file, format!("of-the-file:{}\n", STANDARD.encode([7; 32]))).unwrap();
    let keys = leaves(&Table::try_from(Config::default()).unwrap());
    for (key, default) in &keys {
        let observed = OBSERVED.iter().find(|(known, _)| known == key);
        if let Some((_, test)) = observed {
            assert!(is_test(test), "{key}: there is no test {test}");
            continue;
        }
        let value = match key.as_str() {
            "secrets.master_key" => format!("other:{}", STANDARD.encode([8; 32])),
            "secrets.master_key_file" => file.display().to_string(),
            _ => another(key, default),
        };
        let mut flags = conditions(key);
        let without = load(&flags);
        flags.retain(|flag| !flag.starts_with(&format!("{key}=")));
        flags.push(format!("{key}={value}"));
        let with = load(&flags);
        check::check(&with).unwrap_or_else(|error| panic!("{key}={value}: {error:#}"));
        assert_ne!(without, with, "{key}");
        let (section, name) = key.split_once('.').unwrap();
        let code = codes.entry(reader(section)).or_insert_with(|| code(reader(section)));
        assert!(
            derived(&without) != derived(&with) || is_read(code, name),
            "{key} changes nothing: it has no effect, or name the test that observes it"
        );
    }
}

/// Keys that no longer exist must not be named.
#[test]
fn what_is_named_is_a_key() {
    let keys: Vec<String> = leaves(&Table::try_from(Config::default()).unwrap())
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    for (key, _) in OBSERVED.iter().chain(VALUES) {
        assert!(keys.iter().any(|known| known == key), "{key}");
    }
    assert!(!is_test("no_test_has_this_name"));
}

/// Whether a source file contains a test of this name.
fn is_test(name: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut left: Vec<PathBuf> = ["services", "tests"].map(|directory| root.join(directory)).into();
    // In two pieces, so that this file does not count.
    let wanted = format!("fn {name}{}", '(');
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && fs::read_to_string(path).unwrap().contains(&wanted)
        {
            return true;
        }
    }
    false
}
