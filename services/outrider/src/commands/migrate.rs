//! `outrider migrate`.

use anyhow::{Context, Result, bail};
use outrider_store::{Backend, Store};
use outrider_telemetry::tell_warnings;

use super::load;
use crate::{
    cli::{Configuration, Direction},
    roles,
};

/// How often dropping is tried, each time for half a second, while somebody uses what is to go.
const TRIES: u32 = 5;

/// Migrates, or tells where the schema stands.
pub async fn run(direction: Direction) -> Result<()> {
    match direction {
        Direction::Up { configuration } => up(configuration).await.context("migrate up"),
        Direction::Down { configuration, steps } => down(configuration, steps).await.context("migrate down"),
        Direction::Status { configuration } => status(configuration).await.context("migrate status"),
    }
}

async fn up(configuration: Configuration) -> Result<()> {
    let store = connect(configuration).await?;
    tell("applied", "nothing to apply", &store.migrate_up().await?);
    if store.backend() == Backend::Postgres {
        partitions(&store).await?;
    }
    store.close().await;
    Ok(())
}

/// Makes the partitions of the days to come, and drops those that the servers wrote down.
async fn partitions(store: &Store) -> Result<()> {
    if !store.may_drop().await? {
        bail!("partitions are made and dropped by the owner of the tables: run this as the owner");
    }
    store.ledger().prepare(store.clock().now()).await.context("the partitions of the days to come were not made")?;
    if let Some(days) = store.days_ahead().await? {
        println!("{:<8} partitions of the next {days} days are there", "made");
    }
    let (mut tries, mut is_blocked) = (0, true);
    while is_blocked && tries < TRIES {
        let dropped = store.drop_written_down().await.context("old partitions were not dropped")?;
        for gone in &dropped.gone {
            println!("{:<8} of {}: {} partitions, {} rows", "dropped", gone.table, gone.partitions, gone.rows);
        }
        (tries, is_blocked) = (tries + 1, dropped.is_blocked);
    }
    if is_blocked {
        eprintln!("some old partitions are in use and were not dropped: the next run tries again");
    }
    Ok(())
}

async fn down(configuration: Configuration, steps: u32) -> Result<()> {
    let taken_back = connect(configuration).await?.migrate_down(steps).await?;
    tell("dropped", "nothing to take back", &taken_back);
    Ok(())
}

async fn status(configuration: Configuration) -> Result<()> {
    for migration in connect(configuration).await?.migration_status().await? {
        println!("{:<8} {}", if migration.applied { "applied" } else { "pending" }, migration.name);
    }
    Ok(())
}

fn tell(what: &str, nothing: &str, steps: &[String]) {
    if steps.is_empty() {
        println!("{nothing}");
    }
    for step in steps {
        println!("{what:<8} {step}");
    }
}

async fn connect(configuration: Configuration) -> Result<Store> {
    let config = load(configuration)?;
    tell_warnings()?;
    // A schema needs no secrets, but a store is never opened without its key.
    if roles::create_master_key(&config.secrets)? {
        eprintln!("made a master key in {}", config.secrets.master_key_file);
    }
    Ok(Store::connect(&roles::store_options(&config)?).await?)
}
