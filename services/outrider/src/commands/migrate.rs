//! `outrider migrate`.

use anyhow::{Context, Result};
use outrider_store::Store;

use super::load;
use crate::{
    cli::{Configuration, Direction},
    roles,
};

/// Migrates, or tells where the schema stands.
pub async fn run(direction: Direction) -> Result<()> {
    match direction {
        Direction::Up { configuration } => connect(configuration).await?.migrate_up().await?,
        Direction::Down { configuration, steps } => connect(configuration).await?.migrate_down(steps).await?,
        Direction::Status { configuration } => {
            for migration in connect(configuration).await?.migration_status().await? {
                println!("{:<8} {}", if migration.applied { "applied" } else { "pending" }, migration.name);
            }
        }
    }
    Ok(())
}

async fn connect(configuration: Configuration) -> Result<Store> {
    let config = load(configuration)?;
    // A schema needs no secrets, but a store is never opened without its key.
    if roles::create_master_key(&config.secrets)? {
        eprintln!("made a master key in {}", config.secrets.master_key_file);
    }
    Store::connect(&roles::store_options(&config)?).await.context("database.url")
}
