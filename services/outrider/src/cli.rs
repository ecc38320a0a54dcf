//! The command line.

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::{
    client::{
        Failure, deliveries, endpoints, event_types, events, keys, projects, publish,
        subscriptions, tail,
    },
    commands::{
        bootstrap, completions, config, demo, dev, egress, health, listen, migrate, serve,
        verify_ledger,
    },
};

/// Outrider, a webhook gateway: publishes events to HTTP endpoints, signed, retried and recorded.
#[derive(Debug, Parser)]
#[command(name = "outrider", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Shows the whole way of an event in one process, with nothing installed, and ends.
    Demo,
    /// Runs everything on a data directory, for developing against, and prints lines to try.
    Dev(dev::Dev),
    /// Shows and verifies the webhooks that arrive on a port of this machine.
    Listen(listen::Listen),
    /// Publishes an event, or many from lines.
    Publish(publish::Publish),
    /// Prints events as they are accepted.
    Tail(tail::Tail),
    /// Reads events.
    Events(events::Events),
    /// Reads and retries deliveries.
    Deliveries(deliveries::Deliveries),
    /// Manages endpoints: where webhooks go.
    Endpoints(endpoints::Endpoints),
    /// Manages subscriptions: which events go to which endpoint.
    Subscriptions(subscriptions::Subscriptions),
    /// Manages event types: the catalogue of a project, with the schemas for payloads.
    EventTypes(event_types::EventTypes),
    /// Manages projects.
    Projects(projects::Projects),
    /// Manages API keys.
    Keys(keys::Keys),
    /// Runs roles: by default all, on SQLite and the embedded queue.
    Serve(serve::Serve),
    /// Brings the database's schema up to date, back, or tells where it stands.
    Migrate(migrate::Migrate),
    /// Proves from the database's tables that every accepted event is accounted for. Reads only,
    /// beside running servers or without.
    VerifyLedger(verify_ledger::VerifyLedger),
    /// Makes the first organisation, project and admin key, and prints the key. Where there is an
    /// organisation, it makes nothing.
    Bootstrap(bootstrap::Bootstrap),
    /// Asks a server on this machine whether it can work. Exit code 1 when it cannot, or does not
    /// answer.
    Health(health::Health),
    /// Tells what the egress would do.
    Egress(egress::EgressCommand),
    /// Prints the configuration in force and where each value comes from.
    Config(config::Configured),
    /// Prints what a shell needs to complete command lines.
    Completions(completions::Completions),
}

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
        Command::Completions(options) => completions::run(&options, &mut Cli::command())?,
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
