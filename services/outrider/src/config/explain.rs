//! The configuration in force with the origin of each value, for people and scripts, without its
//! secrets.

use std::fmt::Write as _;

use outrider_store::{Backend, masked_url as masked_url_of_postgres};
use serde_json::json;
use toml::Value;

use super::{
    aggregate::Config, error::Error, keys::secret_keys, layers::Merged, sources::ValueOrigin,
    validate::validate,
};

/// Replaces a secret.
const MASK: &str = "…";

/// The configuration in force, valid or not.
pub struct Explained(Merged);

impl Explained {
    /// Explains merged layers.
    pub fn new(merged: Merged) -> Self {
        Self(merged)
    }

    /// Returns the configuration, if it breaks no rule.
    pub fn validated(&self) -> Result<Config, Error> {
        let config = self.0.config()?;
        validate(&config)?;
        Ok(config)
    }

    /// Formats it as TOML, with the origins as comments.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (section, values) in &self.0.table {
            let start = if text.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{start}[{section}]");
            for (name, value) in values.as_table().into_iter().flatten() {
                let key = format!("{section}.{name}");
                let _ = writeln!(
                    text,
                    "{:<58} # {}",
                    format!("{name} = {}", masked(&key, value)),
                    self.origin(&key)
                );
            }
        }
        text
    }

    /// Formats it as one JSON object: `{"section.key": {"value": …, "origin": "…"}}`.
    pub fn json(&self) -> serde_json::Value {
        let mut all = serde_json::Map::new();
        for (section, values) in &self.0.table {
            for (name, value) in values.as_table().into_iter().flatten() {
                let key = format!("{section}.{name}");
                let entry =
                    json!({"value": masked(&key, value), "origin": self.origin(&key).to_string()});
                all.insert(key, entry);
            }
        }
        all.into()
    }

    fn origin(&self, key: &str) -> &ValueOrigin {
        self.0.origins.get(key).unwrap_or(&ValueOrigin::Default)
    }
}

fn masked(key: &str, value: &Value) -> Value {
    match value {
        Value::String(text)
            if key == "database.url" && Backend::of(text) == Some(Backend::Postgres) =>
        {
            Value::String(masked_url_of_postgres(text))
        }
        Value::String(text) if key.ends_with("url") => Value::String(masked_urls(text)),
        Value::String(text) if secret_keys().any(|secret| secret == key) && !text.is_empty() => {
            Value::String(MASK.into())
        }
        other => other.clone(),
    }
}

/// Masks the passwords in URLs, which are separated by commas.
fn masked_urls(text: &str) -> String {
    let separated = text.replace(",redis", "\n,redis");
    separated.split('\n').map(masked_url).collect()
}

/// Masks the password before the last `@`, and the value of a parameter `password`.
fn masked_url(url: &str) -> String {
    let mut out = url.to_owned();
    if let Some((scheme, rest)) = out.split_once("://")
        && let Some((credentials, host)) = rest.rsplit_once('@')
        && let Some((user, _)) = credentials.split_once(':')
    {
        out = format!("{scheme}://{user}:{MASK}@{host}");
    }
    if let Some((base, query)) = out.split_once('?') {
        let parameters = query.split('&').map(|parameter| match parameter.split_once('=') {
            Some((name, _)) if name.eq_ignore_ascii_case("password") => format!("{name}={MASK}"),
            _ => parameter.to_owned(),
        });
        out = format!("{base}?{}", parameters.collect::<Vec<_>>().join("&"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::sources::Sources;

    #[test]
    fn secrets_do_not_show_and_origins_do() {
        let flags = vec![
            "secrets.master_key=k1:c2VjcmV0".to_owned(),
            "internal.token=c2VjcmV0".to_owned(),
            "database.url=postgres://me:c2VjcmV0@host/name?password=c2VjcmV0&sslmode=require"
                .to_owned(),
        ];
        let explained = Sources { flags, ..Sources::default() }.explain().unwrap();
        let (text, json) = (explained.text(), explained.json());
        assert!(!text.contains("c2VjcmV0") && !json.to_string().contains("c2VjcmV0"), "{text}");
        assert_eq!(
            json["database.url"]["value"],
            "postgres://me:…@host/name?password=…&sslmode=require"
        );
        assert_eq!(json["database.url"]["origin"], "flag --set");
        assert_eq!(json["log.level"]["origin"], "default");
        assert!(text.contains("[database]\n") && text.parse::<toml::Table>().is_ok(), "{text}");
    }

    #[test]
    fn passwords_are_found_in_all_urls() {
        assert_eq!(
            masked_urls("redis://a:x@h:1/0,redis://:y@z@h2/"),
            "redis://a:…@h:1/0,redis://:…@h2/"
        );
        for plain in [
            "embedded",
            "sqlite://outrider-data/outrider.db",
            "http://127.0.0.1:8081",
            "redis://h1,redis://h2",
        ] {
            assert_eq!(masked_urls(plain), plain);
        }
    }

    #[test]
    fn what_is_invalid_is_still_explained() {
        let explained = Sources { flags: vec!["queue.shards=0".into()], ..Sources::default() }
            .explain()
            .unwrap();
        assert_eq!(explained.json()["queue.shards"]["value"], 0);
        assert!(explained.validated().unwrap_err().to_string().contains("queue.shards"));
    }
}
