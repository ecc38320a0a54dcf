//! What the command line does, a file per command.

mod bootstrap;
pub mod completions;
pub mod config;
mod demo;
pub mod dev;
pub mod egress;
pub mod health;
pub mod listen;
mod migrate;
mod serve;
pub mod verify_ledger;

use anyhow::Result;

use crate::{
    cli::{Cli, Command, Configuration},
    client::{
        Failure, deliveries, endpoints, event_types, events, keys, projects, publish,
        subscriptions, tail,
    },
    config::{Config, Sources},
};

/// Runs a command.
pub async fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Demo => demo::run().await?,
        Command::Dev(options) => dev::run(options).await?,
        Command::Listen(options) => listen::run(options).await?,
        Command::Serve(options) => serve::run(options).await?,
        Command::Migrate(options) => migrate::run(options.direction).await?,
        Command::VerifyLedger(options) => verify_ledger::run(options).await?,
        Command::Bootstrap(options) => bootstrap::run(options).await?,
        Command::Health(options) => health::run(options).await?,
        Command::Egress(options) => egress::run(options).await?,
        Command::Config(options) => config::run(options)?,
        Command::Completions(options) => completions::run(&options)?,
        Command::Publish(options) => publish::run(options).await?,
        Command::Tail(options) => tail::run(options).await?,
        Command::Events(options) => events::run(options).await?,
        Command::Deliveries(options) => deliveries::run(options).await?,
        Command::Endpoints(options) => endpoints::run(options).await?,
        Command::Subscriptions(options) => subscriptions::run(options).await?,
        Command::EventTypes(options) => event_types::run(options).await?,
        Command::Projects(options) => projects::run(options).await?,
        Command::Keys(options) => keys::run(options).await?,
    }
    Ok(())
}

fn load(configuration: Configuration) -> Result<Config> {
    Ok(Sources::with_environment(configuration.config, configuration.set).load()?)
}
