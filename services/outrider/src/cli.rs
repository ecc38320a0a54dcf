//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::{
    client::{
        deliveries, endpoints, event_types, events, keys, projects, publish, subscriptions, tail,
    },
    commands::{completions, config, dev, egress, health, listen, verify_ledger},
    roles::Role,
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
    Serve(Serve),
    /// Brings the database's schema up to date, back, or tells where it stands.
    Migrate(Migrate),
    /// Proves from the database's tables that every accepted event is accounted for. Reads only,
    /// beside running servers or without.
    VerifyLedger(verify_ledger::VerifyLedger),
    /// Makes the first organisation, project and admin key, and prints the key. Where there is an
    /// organisation, it makes nothing.
    Bootstrap(Bootstrap),
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

#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    pub configuration: Configuration,
    /// The roles of this process; may be repeated. `all` stands alone.
    #[arg(long = "role", value_enum, default_values_t = [Role::All])]
    pub roles: Vec<Role>,
}

#[derive(Debug, Args)]
pub struct Migrate {
    #[command(subcommand)]
    pub direction: Direction,
}

#[derive(Debug, Subcommand)]
pub enum Direction {
    /// Applies what is missing, and encrypts with the first master key what is in the clear or
    /// under a former key.
    Up {
        #[command(flatten)]
        configuration: Configuration,
        /// Encrypts nothing: for an upgrade, while processes of the version before still run.
        #[arg(long)]
        seal_later: bool,
    },
    /// Takes back the last migrations. Drops their tables with all that is in them.
    Down {
        #[command(flatten)]
        configuration: Configuration,
        /// How many.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        steps: u32,
    },
    /// Lists migrations and whether they are applied.
    Status {
        #[command(flatten)]
        configuration: Configuration,
    },
}

#[derive(Debug, Args)]
pub struct Bootstrap {
    #[command(flatten)]
    pub configuration: Configuration,
    /// The organisation's name.
    #[arg(long, default_value = "Default")]
    pub organization: String,
    /// The project's name.
    #[arg(long, default_value = "Default")]
    pub project: String,
    /// Makes another organisation, project and key where there are some.
    #[arg(long)]
    pub force: bool,
    /// Prints JSON for scripts.
    #[arg(long)]
    pub json: bool,
}
