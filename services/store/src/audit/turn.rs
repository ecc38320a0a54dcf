//! One auditor at a time in a deployment.

use outrider_model::Result;
use sqlx::{Connection as _, PgConnection};

use crate::{Store, connect::Hot, error::unavailable_sql};

/// Whoever audits for the metrics holds this advisory lock: "outraudt" in ASCII.
const LOCK: i64 = 0x6f75_7472_6175_6474;

/// Whether some session of this database has it.
const HELD: &str =
    "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (classid::bigint << 32) | objid::bigint = $1)";

/// The turn to audit, held until it is dropped. On PostgreSQL it is a connection of its own, beside
/// those of the pools, with an advisory lock that ends with it.
#[derive(Debug)]
pub struct AuditTurn {
    connection: Option<PgConnection>,
}

impl AuditTurn {
    /// Whether it is held still: without its connection it is not.
    pub async fn held(&mut self) -> bool {
        match &mut self.connection {
            Some(connection) => connection.ping().await.is_ok(),
            None => true,
        }
    }
}

impl Store {
    /// The turn, unless another process has it. On SQLite, which one process uses, always.
    pub async fn audit_turn(&self) -> Result<Option<AuditTurn>> {
        let Hot::Postgres(_) = self.hot() else { return Ok(Some(AuditTurn { connection: None })) };
        let mut connection = self.postgres_pool().acquire().await.map_err(unavailable_sql)?;
        if sqlx::query_scalar(HELD)
            .bind(LOCK)
            .fetch_one(&mut *connection)
            .await
            .map_err(unavailable_sql)?
        {
            return Ok(None);
        }
        // Out of its pool before the lock is taken: whoever stops waiting here closes it, and the
        // lock stays with no connection of others.
        let mut connection = connection.detach();
        let taken: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
            .bind(LOCK)
            .fetch_one(&mut connection)
            .await
            .map_err(unavailable_sql)?;
        Ok(taken.then_some(AuditTurn { connection: Some(connection) }))
    }
}
