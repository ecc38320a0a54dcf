//! The flags that say where the configuration comes from.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::config::{Config, Sources};

/// Where configuration comes from: defaults < file < OUTRIDER_… variables < flags.
#[derive(Debug, Args)]
pub struct Configuration {
    /// A TOML file.
    #[arg(long, env = "OUTRIDER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One key, such as `gateway.listen=127.0.0.1:8000`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl Configuration {
    /// The layers that these flags name, with the environment.
    pub fn sources(self) -> Sources {
        Sources::with_environment(self.config, self.set)
    }

    /// The configuration in force, validated.
    pub fn load(self) -> Result<Config> {
        Ok(self.sources().load()?)
    }
}
