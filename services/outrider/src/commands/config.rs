//! `outrider config`: what is in force and why.

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::{
    cli::Configuration,
    config::{Explained, Sources},
    roles, stdout,
};

/// Which configuration to show or check.
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
    /// Prints nothing but the first error; fails if there is one.
    Check {
        #[command(flatten)]
        configuration: Configuration,
    },
}

/// Prints what is in force with the origin of each value, or checks it. Fails when it is invalid,
/// after printing what can be printed.
pub fn run(options: Configured) -> Result<()> {
    if let Some(Action::Check { configuration }) = options.action {
        return check(&explain(configuration)?);
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
    Ok(Sources::with_environment(configuration.config, configuration.set).explain()?)
}

fn check(explained: &Explained) -> Result<()> {
    roles::check(&explained.validated()?)
}
