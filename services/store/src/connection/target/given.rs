//! The parameters that a connection string gives.

use std::collections::BTreeMap;

use super::parameters::ALIASES;

/// The parameters that a connection string gives, by name. It has no `Debug`, because values may be
/// secret.
#[derive(Default)]
pub(super) struct Given {
    pub values: BTreeMap<String, String>,
    /// Settings in other spellings, as `-c name=value`.
    pub options: Vec<String>,
}

impl Given {
    /// Adds a parameter that has its own position in a URI. An empty one counts as not given.
    pub fn put(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.values.insert(name.to_owned(), value.to_owned());
        }
    }

    /// Adds a parameter that is given by name. It replaces an earlier one.
    pub fn put_named(&mut self, name: &str, value: &str) {
        if let Some(setting) = name.strip_prefix("options[").and_then(|name| name.strip_suffix(']'))
        {
            self.options.push(option(setting, value));
        } else if ["currentSchema", "search_path"].contains(&name) {
            self.options.push(option("search_path", value));
        } else {
            let name = ALIASES
                .iter()
                .find(|(alias, _)| *alias == name)
                .map_or(name, |(_, parameter)| parameter);
            self.values.insert(name.to_owned(), value.to_owned());
        }
    }
}

fn option(name: &str, value: &str) -> String {
    format!("-c {name}={}", value.replace('\\', "\\\\").replace(' ', "\\ "))
}
