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

/// Outrider, a webhook gateway: delivers events to HTTP endpoints, signed, retried and recorded.
#[derive(Debug, Parser)]
#[command(name = "outrider", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Shows the path of an event from publish to delivery in one process, and exits.
    Demo,
    /// Runs everything in one process for development, and prints commands to try.
    Dev(dev::Dev),
    /// Receives webhooks on a local port, verifies their signatures and prints them.
    Listen(listen::Listen),
    /// Publishes an event, or one event per line of input.
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
    /// Manages event types: the catalog of a project, with schemas for payloads.
    EventTypes(event_types::EventTypes),
    /// Manages projects.
    Projects(projects::Projects),
    /// Manages API keys.
    Keys(keys::Keys),
    /// Runs roles. By default, runs all of them on SQLite and the embedded queue.
    Serve(serve::Serve),
    /// Migrates the database schema up or down, or shows its state.
    Migrate(migrate::Migrate),
    /// Checks in the database that every accepted event is accounted for. Only reads, and may run
    /// beside servers.
    VerifyLedger(verify_ledger::VerifyLedger),
    /// Creates the first organization, project and admin key, and prints the key. Creates nothing
    /// if an organization exists.
    Bootstrap(bootstrap::Bootstrap),
    /// Asks a server on this machine whether it is ready. Exits with 1 if it is not, or does not
    /// answer.
    Health(health::Health),
    /// Shows how the egress would treat a URL.
    Egress(egress::EgressCommand),
    /// Prints the configuration in force, and where each value comes from.
    Config(config::Configured),
    /// Prints the completion script for a shell.
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
