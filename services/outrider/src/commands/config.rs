//! `outrider config`: shows the configuration in force, and where its values come from.

use anyhow::{Result, anyhow};
use clap::{Args, Subcommand};

use super::configuration::Configuration;
use crate::{
    config::{Explained, describe},
    roles, stdout,
};

/// The configuration to show or check.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Configured {
    #[command(subcommand)]
    pub action: Option<Action>,
    #[command(flatten)]
    pub configuration: Configuration,
    /// Prints JSON for scripts.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Prints nothing but the first error, and fails if there is one.
    Check {
        #[command(flatten)]
        configuration: Configuration,
    },
    /// Prints the meaning of a key, or of each key of a section.
    Explain {
        /// A key or a section, such as `gateway.listen` or `gateway`.
        key: String,
    },
}

/// Prints the configuration in force with the origin of each value, or checks it. Fails if it is
/// invalid, after printing as much as possible.
pub fn run(options: Configured) -> Result<()> {
    match options.action {
        Some(Action::Check { configuration }) => return check(&explain(configuration)?),
        Some(Action::Explain { key }) => {
            let text = describe(&key).ok_or_else(|| anyhow!("{key}: there is no such key"))?;
            return stdout::write(&text);
        }
        None => {}
    }
    let explained = explain(options.configuration)?;
    if options.json {
        stdout::write(&format!("{}\n", explained.json()))?;
    } else {
        stdout::write(&explained.text())?;
    }
    check(&explained)
}

fn explain(configuration: Configuration) -> Result<Explained> {
    Ok(configuration.sources().explain()?)
}

fn check(explained: &Explained) -> Result<()> {
    roles::check(&explained.validated()?)
}
