//! Dropping: which days may go, as the servers write it down. Who owns the tables carries it out,
//! and need not know their settings.

use sea_orm_migration::{prelude::*, sea_orm::ConnectionTrait};

#[derive(DeriveMigrationName)]
pub struct Migration;

/// Days before these may go, counted from 1970-01-01; 0 is none. They only ever grow.
const COLUMNS: [&str; 2] = ["history_from", "keys_from"];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in COLUMNS {
            let add = format!(
                "ALTER TABLE commit_log_state ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0"
            );
            manager.get_connection().execute_unprepared(&add).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in COLUMNS {
            let drop = format!("ALTER TABLE commit_log_state DROP COLUMN {column}");
            manager.get_connection().execute_unprepared(&drop).await?;
        }
        Ok(())
    }
}
