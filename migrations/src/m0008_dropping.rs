//! Dropping: which days may be dropped, written down by the servers. The owner of the tables drops
//! them, and does not need to know the servers' settings.

use sea_orm_migration::{prelude::*, sea_orm::ConnectionTrait};

#[derive(DeriveMigrationName)]
pub struct Migration;

/// Days before these may be dropped, counted from 1970-01-01. 0 is none. The values only grow.
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
