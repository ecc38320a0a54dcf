//! `outrider migrate`.

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use outrider_store::{Backend, Store};
use outrider_telemetry::tell_warnings;

use super::configuration::Configuration;
use crate::{config::Config, roles, stderr::note, stdout};

#[derive(Debug, Args)]
pub struct Migrate {
    #[command(subcommand)]
    pub direction: Direction,
}

#[derive(Debug, Subcommand)]
pub enum Direction {
    /// Applies missing migrations, and encrypts values that are in plain text or under a former key
    /// with the first master key.
    Up {
        #[command(flatten)]
        configuration: Configuration,
        /// Encrypts nothing. For an upgrade, while processes of the previous version still run.
        #[arg(long)]
        seal_later: bool,
    },
    /// Reverts the last migrations. Drops their tables with all content.
    Down {
        #[command(flatten)]
        configuration: Configuration,
        /// The number of migrations.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        steps: u32,
    },
    /// Lists migrations and whether they are applied.
    Status {
        #[command(flatten)]
        configuration: Configuration,
    },
}

/// How often dropping is tried, for half a second each, while the partition is in use.
const TRIES: u32 = 5;

/// Migrates, or shows the state of the schema.
pub async fn run(direction: Direction) -> Result<()> {
    match direction {
        Direction::Up { configuration, seal_later } => {
            up(configuration, seal_later).await.context("migrate up")
        }
        Direction::Down { configuration, steps } => {
            down(configuration, steps).await.context("migrate down")
        }
        Direction::Status { configuration } => {
            status(configuration).await.context("migrate status")
        }
    }
}

async fn up(configuration: Configuration, seal_later: bool) -> Result<()> {
    let config = read(configuration)?;
    let store = Store::connect(&roles::first_options(&config)?).await?;
    tell("applied", "nothing to apply", &store.migrate_up().await?)?;
    if store.backend() == Backend::Postgres {
        partitions(&store).await?;
    }
    if !seal_later {
        seal(&store).await?;
    }
    store.close().await;
    Ok(())
}

/// Encrypts values that are in plain text or under a former key.
async fn seal(store: &Store) -> Result<()> {
    let sealed = store.seal().await?;
    for (rows, what) in [
        (sealed.endpoints, "the headers and queries of endpoints"),
        (sealed.secrets, "signing secrets"),
        (sealed.changes, "queries in the feed of changes, by masking them"),
    ] {
        if rows > 0 {
            stdout::line(format_args!("{:<8} {what}: {rows}", "sealed"))?;
        }
    }
    if sealed.unreadable > 0 {
        note!(
            "{} rows could not be decrypted and stay as they are: the lines above name their \
                endpoints",
            sealed.unreadable
        );
    }
    Ok(())
}

/// Creates the partitions of the coming days, and drops those that the servers recorded for it.
async fn partitions(store: &Store) -> Result<()> {
    if !store.may_drop().await? {
        bail!("partitions are made and dropped by the owner of the tables: run this as the owner");
    }
    store
        .ledger()
        .prepare(store.clock().now())
        .await
        .context("the partitions of the days to come were not made")?;
    if let Some(days) = store.days_ahead().await? {
        stdout::line(format_args!("{:<8} partitions of the next {days} days", "created"))?;
    }
    let (mut tries, mut is_blocked) = (0, true);
    while is_blocked && tries < TRIES {
        let dropped = store.drop_written_down().await.context("old partitions were not dropped")?;
        for gone in &dropped.gone {
            stdout::line(format_args!(
                "{:<8} of {}: {} partitions, {} rows",
                "dropped", gone.table, gone.partitions, gone.rows
            ))?;
        }
        (tries, is_blocked) = (tries + 1, dropped.is_blocked);
    }
    if is_blocked {
        note!("some old partitions are in use and were not dropped: the next run tries again");
    }
    Ok(())
}

async fn down(configuration: Configuration, steps: u32) -> Result<()> {
    let taken_back = connect(configuration).await?.migrate_down(steps).await?;
    tell("dropped", "nothing to take back", &taken_back)
}

async fn status(configuration: Configuration) -> Result<()> {
    for migration in connect(configuration).await?.migration_status().await? {
        let state = if migration.applied { "applied" } else { "pending" };
        stdout::line(format_args!("{state:<8} {}", migration.name))?;
    }
    Ok(())
}

fn tell(what: &str, nothing: &str, steps: &[String]) -> Result<()> {
    if steps.is_empty() {
        stdout::line(nothing)?;
    }
    for step in steps {
        stdout::line(format_args!("{what:<8} {step}"))?;
    }
    Ok(())
}

async fn connect(configuration: Configuration) -> Result<Store> {
    let config = read(configuration)?;
    Ok(Store::connect(&roles::options_without_key(&config)?).await?)
}

fn read(configuration: Configuration) -> Result<Config> {
    let config = configuration.load()?;
    tell_warnings()?;
    Ok(config)
}
