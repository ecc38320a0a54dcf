//! Lets one process of a deployment audit at a time.

use outrider_model::Result;
use sqlx::{Connection as _, PgConnection};

use crate::{
    Store,
    connection::{error::unavailable_sql, store::LedgerPool},
};

/// The advisory lock of the process that audits for the metrics: "outraudt" in ASCII.
const LOCK: i64 = 0x6f75_7472_6175_6474;

/// Whether a session of this database has it.
const HELD: &str = "SELECT EXISTS (
    SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (classid::bigint << 32) | objid::bigint = $1)";

/// The turn to audit, held until it is dropped. On PostgreSQL it is a connection outside of the
/// pools with an advisory lock, which ends with it.
#[derive(Debug)]
pub struct AuditTurn {
    connection: Option<PgConnection>,
}

impl AuditTurn {
    /// Whether it is still held. It is not if its connection is lost.
    pub async fn held(&mut self) -> bool {
        match &mut self.connection {
            Some(connection) => connection.ping().await.is_ok(),
            None => true,
        }
    }
}

impl Store {
    /// The turn, unless another process has it. Always granted on SQLite, which one process uses.
    pub async fn audit_turn(&self) -> Result<Option<AuditTurn>> {
        let LedgerPool::Postgres(_) = self.ledger_pool() else {
            return Ok(Some(AuditTurn { connection: None }));
        };
        let mut connection = self.postgres_pool().acquire().await.map_err(unavailable_sql)?;
        if sqlx::query_scalar(HELD)
            .bind(LOCK)
            .fetch_one(&mut *connection)
            .await
            .map_err(unavailable_sql)?
        {
            return Ok(None);
        }
        // Detached from its pool before it takes the lock. If the caller stops waiting here, the
        // connection is closed, and no connection that others use keeps the lock.
        let mut connection = connection.detach();
        let taken: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
            .bind(LOCK)
            .fetch_one(&mut connection)
            .await
            .map_err(unavailable_sql)?;
        Ok(taken.then_some(AuditTurn { connection: Some(connection) }))
    }
}
