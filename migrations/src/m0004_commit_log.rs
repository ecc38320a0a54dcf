//! The commit log: which events a commit accepted and which deliveries it moved, in the order of
//! the commits. Tails read it.
//!
//! There is a row for each commit, kind (1 accepted events, 2 moved deliveries) and project.
//! Entries are concatenated ids: 16 bytes of an event, or 16 bytes of a delivery and 16 of its
//! attempt (zeros without one).

use sea_orm_migration::{
    prelude::*,
    sea_orm::{ConnectionTrait, DbBackend},
};

use crate::partitions;

#[derive(DeriveMigrationName)]
pub struct Migration;

/// A position is the id of the transaction: a reader that reads only below every transaction in
/// progress skips nothing. Entries are random bytes, not worth compressing.
const POSTGRES: [&str; 4] = [
    "CREATE TABLE commit_log (
        kind SMALLINT NOT NULL,
        project_id UUID NOT NULL,
        position BIGINT NOT NULL,
        day INTEGER NOT NULL,
        created_at BIGINT NOT NULL,
        entries BYTEA NOT NULL,
        PRIMARY KEY (kind, project_id, position, day)
    ) PARTITION BY RANGE (day)",
    "ALTER TABLE commit_log ALTER COLUMN entries SET STORAGE EXTERNAL",
    "CREATE TABLE commit_log_state (
        id SMALLINT NOT NULL PRIMARY KEY,
        identity BIGINT NOT NULL,
        kept_from BIGINT NOT NULL
    )",
    "INSERT INTO commit_log_state (id, identity, kept_from) \
     VALUES (1, hashtextextended(gen_random_uuid()::text, 0), 0)",
];

/// A position is the number of the row, which the one writer assigns and never reuses.
const SQLITE: [&str; 4] = [
    "CREATE TABLE commit_log (
        position INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        kind INTEGER NOT NULL,
        project_id BLOB NOT NULL,
        created_at INTEGER NOT NULL,
        entries BLOB NOT NULL
    ) STRICT",
    "CREATE INDEX commit_log_by_project ON commit_log (kind, project_id, position)",
    "CREATE TABLE commit_log_state (
        id INTEGER NOT NULL PRIMARY KEY,
        identity INTEGER NOT NULL,
        kept_from INTEGER NOT NULL
    ) STRICT",
    "INSERT INTO commit_log_state (id, identity, kept_from) VALUES (1, random(), 0)",
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let statements = match manager.get_database_backend() {
            DbBackend::Postgres => POSTGRES,
            DbBackend::Sqlite => SQLITE,
            _ => {
                return Err(DbErr::Migration(
                    "only PostgreSQL and SQLite are supported".to_owned(),
                ));
            }
        };
        let mut statements: Vec<String> = statements.map(str::to_owned).to_vec();
        if manager.get_database_backend() == DbBackend::Postgres {
            // So that a fresh database works immediately. Later, the store creates partitions
            // ahead.
            let partitions = partitions::wanted_of(&[partitions::COMMIT_LOG], partitions::today());
            statements.extend(partitions.into_iter().flat_map(|partition| partition.statements));
        }
        for statement in statements {
            manager.get_connection().execute_unprepared(&statement).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["commit_log_state", "commit_log"] {
            manager.get_connection().execute_unprepared(&format!("DROP TABLE {table}")).await?;
        }
        Ok(())
    }
}
