//! Loading a configuration, and comparing two.

use toml::Table;

use super::{
    aggregate::Config, error::Error, explain::Explained, keys::leaves, layers, sources::Sources,
    validate::validate,
};

impl Sources {
    /// The configuration in force, validated.
    pub fn load(&self) -> Result<Config, Error> {
        let config = layers::merge(self)?.config()?;
        validate(&config)?;
        Ok(config)
    }

    /// The configuration in force, valid or not, and where each value comes from.
    pub fn explain(&self) -> Result<Explained, Error> {
        layers::merge(self).map(Explained::new)
    }
}

/// Returns the keys in which two configurations differ.
pub fn changed_keys(one: &Config, other: &Config) -> Vec<String> {
    let leaves = |config: &Config| {
        Table::try_from(config.clone()).map(|table| leaves(&table)).unwrap_or_default()
    };
    let (one, other) = (leaves(one), leaves(other));
    let mut keys: Vec<String> = one
        .into_iter()
        .zip(other)
        .filter(|(one, other)| one != other)
        .map(|((key, _), _)| key)
        .collect();
    keys.sort_unstable();
    keys
}
