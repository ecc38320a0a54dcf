//! Merging the layers. The defaults, written out, say which keys there are and of which type each is.

use std::{collections::HashMap, path::Path};

use toml::{Table, Value};

use super::{Config, Error, Origin, Sources, secret_files::SecretFiles};

const PREFIX: &str = "OUTRIDER_";
/// Variables of that prefix that are not keys.
const OTHER_VARIABLES: [&str; 6] =
    ["OUTRIDER_CONFIG", "OUTRIDER_SET", "OUTRIDER_SERVER", "OUTRIDER_API_KEY", "OUTRIDER_PROJECT", "OUTRIDER_PROFILE"];

/// All layers laid over each other.
pub struct Merged {
    /// Every key with the value in force.
    pub table: Table,
    /// Where values come from that are not the default, by key.
    pub origins: HashMap<String, Origin>,
}

impl Merged {
    /// As the program uses it.
    pub fn config(&self) -> Result<Config, Error> {
        decode(self.table.clone(), "configuration")
    }
}

/// The merged configuration; errors name the layer and the key.
pub fn merge(sources: &Sources) -> Result<Merged, Error> {
    let mut origins = HashMap::new();
    let mut secret_files = SecretFiles::default();
    let mut merged = Table::try_from(Config::default()).map_err(|error| value_error("defaults", "", &error))?;
    let keys: Vec<(String, Value)> = leaves(&merged);
    if let Some(path) = &sources.file {
        let mut layer = read_file(path)?;
        secret_files.take(&mut layer, &Origin::File(path.clone()))?;
        apply(&mut merged, &path.display().to_string(), &layer)?;
        origins.extend(leaves(&layer).into_iter().map(|(key, _)| (key, Origin::File(path.clone()))));
    }
    for (name, text) in sources.environment.iter().filter(|(name, _)| is_ours(name)) {
        if secret_files.given(name, text, Origin::Variable(name.clone())) {
            continue;
        }
        let (key, default) = keys.iter().find(|(key, _)| &variable(key) == name).ok_or_else(|| Error::Value {
            origin: name.clone(),
            key: name.clone(),
            message: "no key has this name".into(),
        })?;
        set(&mut merged, name, key, parse(name, key, text, default)?)?;
        origins.insert(key.clone(), Origin::Variable(name.clone()));
    }
    for flag in &sources.flags {
        let (key, text) = flag.split_once('=').unwrap_or((flag, ""));
        if secret_files.given(key, text, Origin::Flag) {
            continue;
        }
        let origin = format!("--set {key}");
        let (key, default) = keys.iter().find(|(known, _)| known == key).ok_or_else(|| Error::Value {
            origin: origin.clone(),
            key: key.into(),
            message: "there is no such key".into(),
        })?;
        set(&mut merged, &origin, key, parse(&origin, key, text, default)?)?;
        origins.insert(key.clone(), Origin::Flag);
    }
    secret_files.read(&mut merged, &mut origins)?;
    Ok(Merged { table: merged, origins })
}

/// Whether a variable means to set a key. Kubernetes gives every container the addresses of services, so that one named outrider or
/// outrider-gateway makes variables with our prefix.
fn is_ours(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let service = rest.split('_').any(|part| part == "SERVICE") || rest.split('_').any(|part| part == "PORT");
    let test = rest == "BIN" || rest == "COMMIT" || rest.starts_with("TEST");
    let fail_point = cfg!(feature = "failpoints") && name == "OUTRIDER_FAIL_POINT";
    !service && !test && !fail_point && !OTHER_VARIABLES.contains(&name)
}

/// The variable of a key: `dispatch.feed_period` is OUTRIDER_DISPATCH_FEED_PERIOD.
pub fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

/// All keys with their values.
pub fn leaves(table: &Table) -> Vec<(String, Value)> {
    let sections = table.iter().filter_map(|(section, value)| value.as_table().map(|keys| (section, keys)));
    sections
        .flat_map(|(section, keys)| keys.iter().map(move |(key, value)| (format!("{section}.{key}"), value.clone())))
        .collect()
}

fn read_file(path: &Path) -> Result<Table, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::File { path: path.into(), source })?;
    text.parse().map_err(|error: toml::de::Error| Error::Syntax { path: path.into(), message: error.to_string() })
}

/// Lays a file's values over the others. Decoding the layer alone first finds unknown keys and wrong types, with their names.
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
    let layer = Table::from_iter([(section.to_owned(), Value::Table(Table::from_iter([(name.to_owned(), value)])))]);
    apply(merged, origin, &layer)
}

/// A text as a value of the type that the key's default has.
fn parse(origin: &str, key: &str, text: &str, default: &Value) -> Result<Value, Error> {
    let wrong = |what: &str| Error::Value { origin: origin.into(), key: key.into(), message: format!("must be {what}") };
    Ok(match default {
        Value::Integer(_) => Value::Integer(text.trim().parse().map_err(|_| wrong("a whole number"))?),
        Value::Float(_) => Value::Float(text.trim().parse().map_err(|_| wrong("a number"))?),
        Value::Boolean(_) => Value::Boolean(text.trim().parse().map_err(|_| wrong("true or false"))?),
        Value::Array(_) => Value::Array(
            text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(|part| Value::String(part.into())).collect(),
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

    use super::*;
    use crate::config::Span;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn later_layers_win_and_leave_the_others() {
        let file = file("[dispatch]\nfeed_period = \"2s\"\nfeed_batch = 7\n[egress]\nallow_loopback = true\n");
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
            flags: vec!["queue.prefix=p".into(), "dispatch.feed_batch=9".into()],
        }
        .load()
        .unwrap();
        assert_eq!(config.dispatch.feed_period, Span::seconds(2));
        assert_eq!(config.dispatch.feed_batch, 9);
        assert_eq!(config.dispatch.retry_schedule, [Span::seconds(1), Span::seconds(2)]);
        assert!(config.egress.allow_loopback);
        assert_eq!(config.queue.prefix, "p");
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
        assert_eq!(merged.origins["dispatch.feed_batch"], Origin::Flag);
        assert_eq!(merged.origins["dispatch.accept_batch"], Origin::Variable("OUTRIDER_DISPATCH_ACCEPT_BATCH".into()));
        assert_eq!(merged.origins["dispatch.settle_batch"], Origin::File(file.path().into()));
        assert_eq!(merged.origins.len(), 3);
        assert_eq!(merged.table["dispatch"]["feed_batch"].as_integer(), Some(9));
    }

    #[test]
    fn errors_name_the_layer_and_the_key() {
        let error =
            |text: &str| Sources { file: Some(file(text).path().into()), ..Sources::default() }.load().unwrap_err().to_string();
        assert!(error("[dispatch]\nfeed_perod = \"2s\"\n").contains("feed_perod"));
        assert!(error("[dispatch]\nfeed_period = \"2 parsecs\"\n").contains("dispatch.feed_period"));
        assert!(error("[dispatch]\nfeed_batch = \"x\"\n").contains("dispatch.feed_batch"));
        assert!(error("[nonsense]\n").contains("nonsense"));
        assert!(error("[dispatch\n").contains("not TOML"));
        let environment = vec![("OUTRIDER_NO_SUCH_KEY".to_owned(), "1".to_owned())];
        let error = Sources { environment, ..Sources::default() }.load().unwrap_err().to_string();
        assert!(error.contains("OUTRIDER_NO_SUCH_KEY"));
        let error = Sources { flags: vec!["queue.shards=many".into()], ..Sources::default() }.load().unwrap_err().to_string();
        assert!(error.contains("queue.shards") && error.contains("whole number"));
    }
}
