//! The flags for the sources of the configuration.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::config::{Config, Sources};

/// The sources of the configuration: defaults < file < OUTRIDER_… variables < flags.
#[derive(Debug, Args)]
pub struct Configuration {
    /// A TOML file.
    #[arg(long, env = "OUTRIDER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A key, such as `gateway.listen=127.0.0.1:8000`; can be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl Configuration {
    /// Returns the sources of these flags, with the environment.
    pub fn sources(self) -> Sources {
        Sources::with_environment(self.config, self.set)
    }

    /// Loads and validates the configuration.
    pub fn load(self) -> Result<Config> {
        Ok(self.sources().load()?)
    }
}
