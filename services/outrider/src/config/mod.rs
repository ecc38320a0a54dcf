//! Configuration: defaults, then the file, then the environment, then flags. Every key has a
//! default; unknown keys are errors.

mod explain;
mod layers;
mod port;
mod secret_files;
mod sections;
mod span;
mod target;
mod validate;
mod without_effect;

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

pub use self::{
    explain::Explained,
    port::Port,
    sections::{
        Admin, Database, Dispatch, Egress, Gateway, Ingest, Internal, Log, Operations, Queue,
        Secrets, Telemetry, Worker,
    },
    span::Span,
    target::Target,
};
#[cfg(test)]
pub use self::{
    layers::{leaves, variable},
    secret_files::early as early_secrets,
    sections::Hidden,
    without_effect::CONDITIONS,
};

/// Everything that operators may set. The doc comments are the reference.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub database: Database,
    pub queue: Queue,
    pub secrets: Secrets,
    pub internal: Internal,
    pub log: Log,
    pub telemetry: Telemetry,
    pub operations: Operations,
    pub gateway: Gateway,
    pub ingest: Ingest,
    pub dispatch: Dispatch,
    pub admin: Admin,
    pub worker: Worker,
    pub egress: Egress,
}

/// What is wrong with the configuration, by key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the configuration file {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path} is not TOML: {message}")]
    Syntax { path: PathBuf, message: String },
    #[error("{origin}: {key}: {message}")]
    Value { origin: String, key: String, message: String },
    #[error("{key}: {message}")]
    Invalid { key: &'static str, message: String },
}

/// Where values come from besides the defaults.
#[derive(Debug, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// Variables; those that begin with OUTRIDER_ count.
    pub environment: Vec<(String, String)>,
    /// `section.key=value`, strongest.
    pub flags: Vec<String>,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    File(PathBuf),
    Variable(String),
    Flag,
    /// A file with the one value, named by `KEY_file`.
    SecretFile(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Flag => f.write_str("flag --set"),
            Self::SecretFile(path) => write!(f, "from file {}", path.display()),
        }
    }
}

/// The keys in which two configurations differ.
pub fn changed_keys(one: &Config, other: &Config) -> Vec<String> {
    let leaves = |config: &Config| {
        toml::Table::try_from(config.clone())
            .map(|table| layers::leaves(&table))
            .unwrap_or_default()
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

impl Sources {
    /// The file and flags of the command line, with this process's environment.
    #[must_use]
    pub fn with_environment(file: Option<PathBuf>, flags: Vec<String>) -> Self {
        // Others may be anything. In one of ours, what stands for a byte that is not UTF-8 is
        // refused.
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            Some((name, value.to_string_lossy().into_owned()))
        });
        Self { file, environment: variables.collect(), flags }
    }

    /// The configuration in force, validated.
    pub fn load(&self) -> Result<Config, Error> {
        let config = layers::merge(self)?.config()?;
        validate::validate(&config)?;
        Ok(config)
    }

    /// The configuration in force, valid or not, and where each value comes from.
    pub fn explain(&self) -> Result<Explained, Error> {
        layers::merge(self).map(Explained)
    }
}
