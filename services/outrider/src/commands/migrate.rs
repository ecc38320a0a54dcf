//! `outrider migrate`.

use anyhow::{Context, Result};
use outrider_store::Store;
use outrider_telemetry::tell_warnings;

use super::load;
use crate::{
    cli::{Configuration, Direction},
    roles,
};

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
    store.close().await;
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
