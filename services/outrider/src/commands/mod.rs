//! What the command line does, a file per command.

mod bootstrap;
pub mod config;
mod demo;
pub mod dev;
pub mod listen;
mod migrate;
mod serve;

use anyhow::Result;

use crate::{
    cli::{Cli, Command, Configuration},
    config::{Config, Sources},
};

/// Runs a command.
pub async fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Demo => demo::run().await,
        Command::Dev(options) => dev::run(options).await,
        Command::Listen(options) => listen::run(options).await,
        Command::Serve(options) => serve::run(options).await,
        Command::Migrate(options) => migrate::run(options.direction).await,
        Command::Bootstrap(options) => bootstrap::run(options).await,
        Command::Config(options) => config::run(options),
    }
}

fn load(configuration: Configuration) -> Result<Config> {
    Ok(Sources::with_environment(configuration.config, configuration.set).load()?)
}
