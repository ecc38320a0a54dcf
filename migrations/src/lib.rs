//! The migrations of the schema for PostgreSQL and SQLite, up and down.
//!
//! A released migration is never edited. Versions N and N-1 run at the same time on one schema, so
//! a change takes two migrations: one expands the schema, and a later one contracts it. This crate
//! must never contain queries of the running system.

use sea_orm_migration::prelude::*;

mod m0001_configuration;
mod m0002_ledger;
mod m0003_event_types;
mod m0004_commit_log;
mod m0005_retention;
mod m0006_attempts_by_start;
mod m0007_resent;
mod m0008_dropping;
mod m0009_sealed_endpoints;
mod m0010_settings;
pub mod partitions;

/// All migrations, oldest first.
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_configuration::Migration),
            Box::new(m0002_ledger::Migration),
            Box::new(m0003_event_types::Migration),
            Box::new(m0004_commit_log::Migration),
            Box::new(m0005_retention::Migration),
            Box::new(m0006_attempts_by_start::Migration),
            Box::new(m0007_resent::Migration),
            Box::new(m0008_dropping::Migration),
            Box::new(m0009_sealed_endpoints::Migration),
            Box::new(m0010_settings::Migration),
        ]
    }
}
