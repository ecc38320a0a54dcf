//! Merges the layers. The serialized defaults determine which keys exist, and their types.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use toml::{Table, Value};

use super::{
    aggregate::Config,
    error::Error,
    keys::{PREFIX, leaves, variable},
    secret_files::SecretFiles,
    sources::{Sources, ValueOrigin},
};

/// Variables with the prefix that are not keys.
const OTHER_VARIABLES: [&str; 5] = [
    "OUTRIDER_CONFIG",
    "OUTRIDER_SERVER",
    "OUTRIDER_API_KEY",
    "OUTRIDER_PROJECT",
    "OUTRIDER_PROFILE",
];

/// The merged layers.
pub struct Merged {
    /// Every key with the value in force.
    pub table: Table,
    /// The origin of each value that is not the default, by key.
    pub origins: HashMap<String, ValueOrigin>,
}

impl Merged {
    /// Returns the configuration as the program uses it.
    pub fn config(&self) -> Result<Config, Error> {
        decode(self.table.clone(), "configuration")
    }
}

/// Returns the merged layers. Errors name the layer and the key.
pub fn merge(sources: &Sources) -> Result<Merged, Error> {
    let mut origins = HashMap::new();
    let mut secret_files = SecretFiles::default();
    let mut merged =
        Table::try_from(Config::default()).map_err(|error| value_error("defaults", "", &error))?;
    let keys: Vec<(String, Value)> = leaves(&merged);
    if let Some(path) = &sources.file {
        let mut layer = read_file(path)?;
        secret_files.take(&mut layer, &ValueOrigin::File(path.clone()))?;
        apply(&mut merged, &path.display().to_string(), &layer)?;
        origins.extend(
            leaves(&layer).into_iter().map(|(key, _)| (key, ValueOrigin::File(path.clone()))),
        );
    }
    for (name, text) in sources.environment.iter().filter(|(name, _)| is_ours(name)) {
        if text.contains(char::REPLACEMENT_CHARACTER) {
            return Err(value_error(name, name, &"must be UTF-8"));
        }
        if secret_files.given(name, text, ValueOrigin::Variable(name.clone())) {
            continue;
        }
        match keys.iter().find(|(key, _)| &variable(key) == name) {
            Some((key, default)) => {
                set(&mut merged, name, key, parse(name, key, text, default)?)?;
                origins.insert(key.clone(), ValueOrigin::Variable(name.clone()));
            }
            None if is_of_kubernetes(name, text) => {}
            None => return Err(value_error(name, name, &"no key has this name")),
        }
    }
    let mut flags = HashSet::new();
    for flag in &sources.flags {
        let (key, text) =
            flag.split_once('=').ok_or_else(|| value_error("--set", flag, &"must be KEY=VALUE"))?;
        let origin = format!("--set {key}");
        if !flags.insert(key) {
            return Err(value_error(&origin, key, &"is given twice"));
        }
        if secret_files.given(key, text, ValueOrigin::Flag) {
            continue;
        }
        let known = keys.iter().find(|(known, _)| known == key);
        let (key, default) =
            known.ok_or_else(|| value_error(&origin, key, &"there is no such key"))?;
        set(&mut merged, &origin, key, parse(&origin, key, text, default)?)?;
        origins.insert(key.clone(), ValueOrigin::Flag);
    }
    secret_files.read(&mut merged, &mut origins)?;
    Ok(Merged { table: merged, origins })
}

/// Whether a variable belongs to the configuration.
fn is_ours(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let test = rest == "BIN" || rest == "COMMIT" || rest.starts_with("TEST");
    let fail_point = cfg!(feature = "failpoints") && name == "OUTRIDER_FAIL_POINT";
    !test && !fail_point && !OTHER_VARIABLES.contains(&name)
}

/// Whether a variable was set by Kubernetes, which gives every container the addresses of all
/// services in these forms. A service named outrider or outrider-gateway leads to variables with
/// our prefix.
fn is_of_kubernetes(name: &str, text: &str) -> bool {
    let after =
        |part: &'static str| name.match_indices(part).map(move |(at, _)| &name[at + part.len()..]);
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| text.starts_with(scheme));
    let of_service = |rest: &str| rest == "HOST" || rest == "PORT" || rest.starts_with("PORT_");
    // As in 8080_TCP and 8080_TCP_ADDR.
    let of_port = |rest: &str| {
        let mut parts = rest.split('_');
        let number = parts.next().is_some_and(|number| number.parse::<u16>().is_ok());
        let protocol = matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"));
        number
            && protocol
            && matches!(
                (parts.next(), parts.next()),
                (None | Some("PROTO" | "PORT" | "ADDR"), None)
            )
    };
    after("_SERVICE_").any(of_service)
        || after("_PORT_").any(of_port)
        || name.ends_with("_PORT") && is_url
}

fn read_file(path: &Path) -> Result<Table, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| Error::File { path: path.into(), source })?;
    text.parse().map_err(|error: toml::de::Error| Error::Syntax {
        path: path.into(),
        message: error.to_string(),
    })
}

/// Merges the values of a file. Decodes the layer alone first, which finds unknown keys and wrong
/// types by name.
fn apply(merged: &mut Table, origin: &str, layer: &Table) -> Result<(), Error> {
    decode(layer.clone(), origin)?;
    for (section, values) in layer {
        let target = merged.get_mut(section).and_then(Value::as_table_mut);
        if let (Some(target), Some(values)) = (target, values.as_table()) {
            target.extend(values.clone());
        }
    }
    Ok(())
}

fn set(merged: &mut Table, origin: &str, key: &str, value: Value) -> Result<(), Error> {
    let (section, name) = key.split_once('.').unwrap_or((key, ""));
    let layer = Table::from_iter([(
        section.to_owned(),
        Value::Table(Table::from_iter([(name.to_owned(), value)])),
    )]);
    apply(merged, origin, &layer)
}

/// Converts a text to the type of the key's default.
fn parse(origin: &str, key: &str, text: &str, default: &Value) -> Result<Value, Error> {
    let wrong = |what: &str| Error::Value {
        origin: origin.into(),
        key: key.into(),
        message: format!("must be {what}"),
    };
    Ok(match default {
        Value::Integer(_) => {
            Value::Integer(text.trim().parse().map_err(|_| wrong("a whole number"))?)
        }
        Value::Float(_) => Value::Float(text.trim().parse().map_err(|_| wrong("a number"))?),
        Value::Boolean(_) => {
            Value::Boolean(text.trim().parse().map_err(|_| wrong("true or false"))?)
        }
        Value::Array(_) => Value::Array(
            text.split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .map(|part| Value::String(part.into()))
                .collect(),
        ),
        _ => Value::String(text.to_owned()),
    })
}

fn decode(table: Table, origin: &str) -> Result<Config, Error> {
    serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
        let key = error.path().to_string();
        value_error(origin, &key, &error.into_inner())
    })
}

fn value_error(origin: &str, key: &str, error: &dyn std::fmt::Display) -> Error {
    let message = error.to_string().trim().replace('\n', " ");
    Error::Value { origin: origin.into(), key: key.into(), message }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use outrider_settings::seconds;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn later_layers_win_and_leave_the_others() {
        let file = file(
            "[dispatch]\nfeed_period = \"2s\"\nfeed_batch = 7\n[egress]\nallow_loopback = true\n",
        );
        let environment = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let config = Sources {
            file: Some(file.path().into()),
            environment: vec![
                environment("OUTRIDER_DISPATCH_FEED_BATCH", "8"),
                environment("OUTRIDER_DISPATCH_RETRY_SCHEDULE", "1s, 2s"),
                environment("PATH", "x"),
                environment("OUTRIDER_SERVICE_HOST", "10.0.0.1"),
                environment("OUTRIDER_GATEWAY_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ],
            flags: vec!["dispatch.inline_bytes=9".into(), "dispatch.feed_batch=9".into()],
        }
        .load()
        .unwrap();
        assert_eq!(config.dispatch.feed_period, seconds(2));
        assert_eq!(config.dispatch.feed_batch, 9);
        assert_eq!(config.dispatch.retry_schedule, [seconds(1), seconds(2)]);
        assert!(config.egress.allow_loopback);
        assert_eq!(config.dispatch.inline_bytes, 9);
    }

    #[test]
    fn the_variable_of_every_key_sets_it() {
        let defaults = leaves(&Table::try_from(Config::default()).unwrap());
        for (key, default) in &defaults {
            let text = match default {
                Value::Integer(number) => (number + 1).to_string(),
                Value::Float(number) => (number / 2.0 + 0.125).to_string(),
                Value::Boolean(value) => (!value).to_string(),
                Value::Array(_) if key == "dispatch.retry_schedule" => "7s".to_owned(),
                Value::Array(_) if key == "egress.allow" || key == "egress.deny" => {
                    "10.0.0.7".to_owned()
                }
                _ if key == "egress.source_address" => "10.0.0.7".to_owned(),
                Value::String(text)
                    if text.starts_with(|first: char| first.is_ascii_digit())
                        && !text.contains(':') =>
                {
                    "7s".to_owned()
                }
                _ => "7".to_owned(),
            };
            let environment = vec![(variable(key), text)];
            let merged = merge(&Sources { environment, ..Sources::default() });
            let merged = merged.unwrap_or_else(|error| panic!("{key}: {error}"));
            let changed = leaves(&merged.table).into_iter().filter(|leaf| !defaults.contains(leaf));
            assert_eq!(changed.map(|(key, _)| key).collect::<Vec<_>>(), std::slice::from_ref(key));
        }
    }

    #[test]
    fn variables_of_kubernetes_are_told_from_misspelt_ones() {
        let load = |name: &str, text: &str| {
            let environment = vec![(name.to_owned(), text.to_owned())];
            Sources { environment, ..Sources::default() }.load().map_err(|error| error.to_string())
        };
        for (name, text) in [
            ("OUTRIDER_SERVICE_HOST", "10.0.0.1"),
            ("OUTRIDER_GATEWAY_SERVICE_PORT", "80"),
            ("OUTRIDER_GATEWAY_SERVICE_PORT_HTTP", "80"),
            ("OUTRIDER_PORT", "tcp://10.0.0.1:80"),
            ("OUTRIDER_GATEWAY_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("OUTRIDER_GATEWAY_PORT_8080_UDP_PROTO", "udp"),
            ("OUTRIDER_SERVICE_A_SERVICE_HOST", "10.0.0.1"),
        ] {
            assert!(load(name, text).is_ok(), "{name}");
        }
        for (name, text) in [
            ("OUTRIDER_GATEWAY_SERVICE_NAME", "x"),
            ("OUTRIDER_GATEWAY_PORT", "8080"),
            ("OUTRIDER_PORT_RANGE", "1"),
            ("OUTRIDER_GATEWAY_PORT_8080_TCP_X", "1"),
            ("OUTRIDER_SET", "queue.prefix=p"),
        ] {
            assert!(load(name, text).unwrap_err().contains(name), "{name}");
        }
    }

    #[test]
    fn flags_are_a_key_and_a_value_given_once() {
        let load = |flags: &[&str]| {
            let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
            Sources { flags, ..Sources::default() }.load().map_err(|error| error.to_string())
        };
        assert!(load(&["queue.prefix"]).unwrap_err().contains("KEY=VALUE"));
        assert!(load(&["log.level=a", "log.level=b"]).unwrap_err().contains("twice"));
        assert_eq!(load(&["log.level=h2=warn"]).unwrap().log.level, "h2=warn");
    }

    #[test]
    fn the_strongest_layer_is_the_origin() {
        let file = file("[dispatch]\nfeed_batch = 7\nsettle_batch = 7\naccept_batch = 7\n");
        let merged = merge(&Sources {
            file: Some(file.path().into()),
            environment: vec![
                ("OUTRIDER_DISPATCH_FEED_BATCH".to_owned(), "8".to_owned()),
                ("OUTRIDER_DISPATCH_ACCEPT_BATCH".to_owned(), "8".to_owned()),
                ("OUTRIDER_API_KEY".to_owned(), "ork_x".to_owned()),
            ],
            flags: vec!["dispatch.feed_batch=9".into()],
        })
        .unwrap();
        assert_eq!(merged.origins["dispatch.feed_batch"], ValueOrigin::Flag);
        assert_eq!(
            merged.origins["dispatch.accept_batch"],
            ValueOrigin::Variable("OUTRIDER_DISPATCH_ACCEPT_BATCH".into())
        );
        assert_eq!(merged.origins["dispatch.settle_batch"], ValueOrigin::File(file.path().into()));
        assert_eq!(merged.origins.len(), 3);
        assert_eq!(merged.table["dispatch"]["feed_batch"].as_integer(), Some(9));
    }

    #[test]
    fn errors_name_the_layer_and_the_key() {
        let error = |text: &str| {
            Sources { file: Some(file(text).path().into()), ..Sources::default() }
                .load()
                .unwrap_err()
                .to_string()
        };
        assert!(error("[dispatch]\nfeed_perod = \"2s\"\n").contains("feed_perod"));
        assert!(
            error("[dispatch]\nfeed_period = \"2 parsecs\"\n").contains("dispatch.feed_period")
        );
        assert!(error("[dispatch]\nfeed_batch = \"x\"\n").contains("dispatch.feed_batch"));
        assert!(error("[nonsense]\n").contains("nonsense"));
        assert!(error("[dispatch\n").contains("not TOML"));
        let environment = vec![("OUTRIDER_NO_SUCH_KEY".to_owned(), "1".to_owned())];
        let error = Sources { environment, ..Sources::default() }.load().unwrap_err().to_string();
        assert!(error.contains("OUTRIDER_NO_SUCH_KEY"));
        let error = Sources { flags: vec!["queue.shards=many".into()], ..Sources::default() }
            .load()
            .unwrap_err()
            .to_string();
        assert!(error.contains("queue.shards") && error.contains("whole number"));
    }

    #[test]
    fn destinations_come_from_every_layer_and_a_bad_one_is_named_by_its_place() {
        let load =
            |flag: &str| Sources { flags: vec![flag.to_owned()], ..Sources::default() }.load();
        let config = load("egress.allow=10.20.0.0/16:8080, receiver ,[fd12::1]:443").unwrap();
        let texts: Vec<_> = config.egress.allow.iter().map(|entry| entry.0.to_string()).collect();
        assert_eq!(texts, ["10.20.0.0/16:8080", "receiver", "[fd12::1]:443"]);
        let environment = vec![("OUTRIDER_EGRESS_DENY".to_owned(), "*.bad.example".to_owned())];
        let config = Sources { environment, ..Sources::default() }.load().unwrap();
        assert_eq!(config.egress.deny.len(), 1);
        let error = load("egress.deny=example.com,10.20.0.1/16").unwrap_err().to_string();
        assert!(
            error.contains("egress.deny[1]") && error.contains("did you mean 10.20.0.0/16?"),
            "{error}"
        );
    }
}
