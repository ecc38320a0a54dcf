//! The keys of the configuration, and their variables.

use outrider_settings::{Field, Kind};
use toml::{Table, Value};

use super::aggregate::SECTIONS;

/// The prefix of all variables.
pub const PREFIX: &str = "OUTRIDER_";
/// The file of this key is a key of its own with a default. It is read when it is needed, because
/// `outrider bootstrap` creates it.
pub const READ_LATE: &str = "secrets.master_key";

/// Returns the variable of a key: `dispatch.feed_period` is OUTRIDER_DISPATCH_FEED_PERIOD.
pub fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

/// Returns all keys with their values.
pub fn leaves(table: &Table) -> Vec<(String, Value)> {
    let sections =
        table.iter().filter_map(|(section, value)| value.as_table().map(|keys| (section, keys)));
    sections
        .flat_map(|(section, keys)| {
            keys.iter().map(move |(key, value)| (format!("{section}.{key}"), value.clone()))
        })
        .collect()
}

/// Returns the description of each key.
pub fn fields() -> impl Iterator<Item = &'static Field> {
    SECTIONS.iter().flat_map(|section| section.fields)
}

/// Returns the keys whose value is a secret or may contain a password.
pub fn secret_keys() -> impl Iterator<Item = &'static str> {
    fields().filter(|field| field.kind == Kind::Secret).map(|field| field.key)
}

/// Returns the keys that can be given by a file, as `KEY_file`.
pub fn read_from_files() -> impl Iterator<Item = &'static str> {
    secret_keys().filter(|key| *key != READ_LATE)
}
