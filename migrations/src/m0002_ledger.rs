//! The ledger: events, deliveries, attempts, and the keys that keep a step from being done twice.
//!
//! Times are microseconds since 1970, maps and lists are JSON text, ids are UUIDs (16 bytes on
//! SQLite). There are no foreign keys, because references are checked before they are written. On
//! PostgreSQL the history is partitioned by the day in its ids.

use sea_orm_migration::{
    prelude::*,
    sea_orm::{ConnectionTrait, DbBackend},
};

use crate::partitions;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let tables = match manager.get_database_backend() {
            DbBackend::Postgres => Tables::postgres(),
            DbBackend::Sqlite => Tables::sqlite(),
            _ => {
                return Err(DbErr::Migration(
                    "only PostgreSQL and SQLite are supported".to_owned(),
                ));
            }
        };
        let mut statements = tables.statements();
        if manager.get_database_backend() == DbBackend::Postgres {
            // So that a fresh database works immediately. Later, the store creates partitions
            // ahead.
            let partitions = partitions::wanted_of(&partitions::LEDGER, partitions::today());
            statements.extend(partitions.into_iter().flat_map(|partition| partition.statements));
        }
        for statement in statements {
            manager.get_connection().execute_unprepared(&statement).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [
            "replays",
            "idempotency_keys",
            "attempts",
            "deliveries",
            "pending_deliveries",
            "events",
        ] {
            manager.get_connection().execute_unprepared(&format!("DROP TABLE {table}")).await?;
        }
        Ok(())
    }
}

/// The types of a backend, and the texts after the columns of a table.
struct Tables {
    id: &'static str,
    bytes: &'static str,
    small: &'static str,
    number: &'static str,
    big: &'static str,
    flag: &'static str,
    /// For the tables of history.
    by_id: &'static str,
    /// For the idempotency keys.
    by_day: &'static str,
    /// For the pending deliveries.
    mutable: &'static str,
    /// For a narrow table.
    narrow: &'static str,
}

impl Tables {
    fn postgres() -> Self {
        Self {
            id: "UUID",
            bytes: "BYTEA",
            small: "SMALLINT",
            number: "INTEGER",
            big: "BIGINT",
            flag: "BOOLEAN",
            by_id: " PARTITION BY RANGE (id)",
            by_day: " PARTITION BY RANGE (day)",
            // Rows live for seconds and are updated in place: leave room for that, and vacuum after
            // every few thousand dead rows.
            mutable: " WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0, \
                      autovacuum_vacuum_threshold = 5000, autovacuum_analyze_scale_factor = 0.05, \
                      autovacuum_vacuum_cost_delay = 0)",
            narrow: "",
        }
    }

    fn sqlite() -> Self {
        Self {
            id: "BLOB",
            bytes: "BLOB",
            small: "INTEGER",
            number: "INTEGER",
            big: "INTEGER",
            flag: "INTEGER",
            by_id: " STRICT",
            by_day: " STRICT, WITHOUT ROWID",
            mutable: " STRICT, WITHOUT ROWID",
            narrow: " STRICT, WITHOUT ROWID",
        }
    }

    fn statements(&self) -> Vec<String> {
        let mut statements = self.events();
        statements.extend(self.pending());
        statements.extend(self.deliveries());
        statements.extend(self.attempts());
        statements.extend(self.keys());
        statements
    }

    fn events(&self) -> Vec<String> {
        let Self { id, bytes, number, big, by_id, .. } = self;
        vec![
            format!(
                "CREATE TABLE events (
                    id {id} NOT NULL PRIMARY KEY,
                    project_id {id} NOT NULL,
                    event_type TEXT NOT NULL,
                    content_type TEXT NOT NULL,
                    payload {bytes} NOT NULL,
                    payload_size {number} NOT NULL,
                    idempotency_key TEXT,
                    headers TEXT NOT NULL,
                    metadata TEXT NOT NULL,
                    ordering_key TEXT,
                    deliver_at {big},
                    delivery_count {number} NOT NULL,
                    origin TEXT NOT NULL,
                    created_at {big} NOT NULL
                ){by_id}"
            ),
            "CREATE INDEX events_by_project ON events (project_id, id)".to_owned(),
            "CREATE INDEX events_by_type ON events (project_id, event_type, id)".to_owned(),
        ]
    }

    /// The one table whose rows change. They are small, and deleted when their delivery ends.
    fn pending(&self) -> Vec<String> {
        let Self { id, bytes, number, big, mutable, .. } = self;
        vec![
            format!(
                "CREATE TABLE pending_deliveries (
                    id {id} NOT NULL PRIMARY KEY,
                    project_id {id} NOT NULL,
                    event_id {id} NOT NULL,
                    event_type TEXT NOT NULL,
                    endpoint_id {id} NOT NULL,
                    subscription_ids {bytes} NOT NULL,
                    replay_number {number} NOT NULL,
                    attempt {number} NOT NULL,
                    due_at {big} NOT NULL,
                    queued_epoch {big},
                    generation {number} NOT NULL,
                    check_at {big} NOT NULL,
                    last_status_code {number},
                    created_at {big} NOT NULL
                ){mutable}"
            ),
            "CREATE INDEX pending_by_due ON pending_deliveries (endpoint_id, due_at, id) \
             WHERE queued_epoch IS NULL"
                .to_owned(),
            "CREATE INDEX pending_by_check ON pending_deliveries (check_at) \
             WHERE queued_epoch IS NOT NULL"
                .to_owned(),
            "CREATE INDEX pending_by_project ON pending_deliveries (project_id, id)".to_owned(),
            "CREATE INDEX pending_by_endpoint ON pending_deliveries (endpoint_id, id)".to_owned(),
        ]
    }

    fn deliveries(&self) -> Vec<String> {
        let Self { id, bytes, small, number, big, by_id, .. } = self;
        vec![
            format!(
                "CREATE TABLE deliveries (
                    id {id} NOT NULL PRIMARY KEY,
                    project_id {id} NOT NULL,
                    event_id {id} NOT NULL,
                    event_type TEXT NOT NULL,
                    endpoint_id {id} NOT NULL,
                    subscription_ids {bytes} NOT NULL,
                    replay_number {number} NOT NULL,
                    status {small} NOT NULL,
                    reason {small} NOT NULL,
                    attempt_count {number} NOT NULL,
                    last_status_code {number},
                    created_at {big} NOT NULL,
                    finished_at {big} NOT NULL
                ){by_id}"
            ),
            "CREATE INDEX deliveries_by_project ON deliveries (project_id, id)".to_owned(),
            "CREATE INDEX deliveries_by_endpoint ON deliveries (endpoint_id, id)".to_owned(),
            "CREATE INDEX deliveries_by_type ON deliveries (project_id, event_type, id)".to_owned(),
            // Delivered (2) is the rule and needs no index of its own. Callers look for deliveries
            // with other statuses.
            "CREATE INDEX deliveries_by_status ON deliveries (project_id, status, id) \
             WHERE status <> 2"
                .to_owned(),
            "CREATE INDEX deliveries_by_endpoint_status ON deliveries (endpoint_id, status, id) \
             WHERE status <> 2"
                .to_owned(),
        ]
    }

    /// The attempts of a delivery are found by its millisecond, which their ids share.
    fn attempts(&self) -> Vec<String> {
        let Self { id, bytes, small, number, big, flag, by_id, .. } = self;
        vec![
            format!(
                "CREATE TABLE attempts (
                    id {id} NOT NULL PRIMARY KEY,
                    delivery_id {id} NOT NULL,
                    event_id {id} NOT NULL,
                    endpoint_id {id} NOT NULL,
                    project_id {id} NOT NULL,
                    number {number} NOT NULL,
                    outcome {small} NOT NULL,
                    status_code {number},
                    started_at {big} NOT NULL,
                    duration_micros {big} NOT NULL,
                    response_headers TEXT NOT NULL,
                    response_body {bytes} NOT NULL,
                    response_truncated {flag} NOT NULL,
                    error_message TEXT
                ){by_id}"
            ),
            "CREATE INDEX attempts_by_project ON attempts (project_id, id)".to_owned(),
            "CREATE INDEX attempts_by_endpoint ON attempts (endpoint_id, id)".to_owned(),
            // Succeeded (1) is the rule and needs no index of its own.
            "CREATE INDEX attempts_by_outcome ON attempts (project_id, outcome, id) \
             WHERE outcome <> 1"
                .to_owned(),
            "CREATE INDEX attempts_by_endpoint_outcome ON attempts (endpoint_id, outcome, id) \
             WHERE outcome <> 1"
                .to_owned(),
        ]
    }

    /// The day comes last in the primary key: a key is looked up in a range of days with one index
    /// descent per day.
    fn keys(&self) -> Vec<String> {
        let Self { id, bytes, number, big, by_day, narrow, .. } = self;
        vec![
            format!(
                "CREATE TABLE idempotency_keys (
                    day {number} NOT NULL,
                    project_id {id} NOT NULL,
                    key TEXT NOT NULL,
                    event_id {id} NOT NULL,
                    fingerprint {bytes} NOT NULL,
                    delivery_count {number} NOT NULL,
                    created_at {big} NOT NULL,
                    PRIMARY KEY (project_id, key, day)
                ){by_day}"
            ),
            // Deliveries of an event are found by its millisecond. Only those of replays, which
            // have their own time, need this list.
            format!(
                "CREATE TABLE replays (
                    event_id {id} NOT NULL,
                    endpoint_id {id} NOT NULL,
                    replay_number {number} NOT NULL,
                    delivery_id {id} NOT NULL,
                    project_id {id} NOT NULL,
                    PRIMARY KEY (event_id, endpoint_id, replay_number)
                ){narrow}"
            ),
        ]
    }
}
