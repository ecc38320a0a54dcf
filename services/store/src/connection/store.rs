//! The handle to an open database.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use outrider_model::Result;
use sea_orm::DatabaseConnection;
use sqlx::SqlitePool;

use super::{
    backend::Backend, clock::Clock, error::unavailable, measure, patience, probes::Refusals,
    sessions::Sessions, turns::CallerTurns,
};
use crate::{cipher::MasterKeys, ledger::Ledger};

/// A step of a sweep or an audit is several statements: it may take this many times as long.
const STEP: u32 = 4;

/// A cheap handle to the database.
#[derive(Clone)]
pub struct Store {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub backend: Backend,
    pub read: DatabaseConnection,
    pub write: DatabaseConnection,
    pub ledger_pool: LedgerPool,
    pub caller_turns: CallerTurns,
    pub clock: Clock,
    pub master_keys: MasterKeys,
    pub patience: Duration,
    pub refusals: Refusals,
    pub ledger: OnceLock<Arc<dyn Ledger>>,
}

/// The connections of the ledger. On PostgreSQL they are separate from those for queries, so that
/// neither waits for the other, and they are planned differently.
pub(crate) enum LedgerPool {
    Postgres(Sessions),
    Sqlite { read: SqlitePool, write: SqlitePool },
}

impl measure::Pools for Inner {
    fn pools(&self) -> Vec<(u32, usize)> {
        match &self.ledger_pool {
            LedgerPool::Postgres(sessions) => {
                let queries = self.read.get_postgres_connection_pool();
                vec![(queries.size(), queries.num_idle()), sessions.count()]
            }
            LedgerPool::Sqlite { read, write } => {
                [read, write].map(|pool| (pool.size(), pool.num_idle())).into()
            }
        }
    }
}

impl Store {
    /// The kind of database.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.inner.backend
    }

    /// The database's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// Closes all connections except those of the ledger, which close with its last handle. Waits
    /// for calls in progress, but not without end.
    pub async fn close(&self) {
        for connection in [&self.inner.read, &self.inner.write] {
            let closed = async { connection.clone().close().await.map_err(unavailable) };
            if let Err(error) = self.within(closed).await {
                tracing::debug!(%error, "the database was not closed cleanly");
            }
        }
    }

    /// For reads. For SQLite in a file, a pool of several connections.
    pub(crate) fn read(&self) -> &DatabaseConnection {
        &self.inner.read
    }

    /// For writes. On SQLite there is one such connection, so that nobody sees "database is
    /// locked": whoever holds it must not ask for another.
    pub(crate) fn write(&self) -> &DatabaseConnection {
        &self.inner.write
    }

    /// For reads by statements that only PostgreSQL has.
    pub(crate) fn postgres_pool(&self) -> &sqlx::PgPool {
        self.read().get_postgres_connection_pool()
    }

    /// For reads by statements that only SQLite has.
    pub(crate) fn sqlite_pool(&self) -> &sqlx::SqlitePool {
        self.read().get_sqlite_connection_pool()
    }

    /// How long work may take that no request bounds.
    pub(crate) fn patience(&self) -> Duration {
        self.inner.patience
    }

    pub(crate) fn refusals(&self) -> &Refusals {
        &self.inner.refusals
    }

    pub(crate) fn caller_turns(&self) -> &CallerTurns {
        &self.inner.caller_turns
    }

    pub(crate) fn ledger_pool(&self) -> &LedgerPool {
        &self.inner.ledger_pool
    }

    pub(crate) fn master_keys(&self) -> &MasterKeys {
        &self.inner.master_keys
    }

    /// The ledger that all handles of this store share. `open` makes it for the first caller.
    pub(crate) fn ledger_or_open(&self, open: impl FnOnce() -> Arc<dyn Ledger>) -> Arc<dyn Ledger> {
        Arc::clone(self.inner.ledger.get_or_init(open))
    }

    /// Bounds one statement that no request bounds.
    pub(crate) async fn within<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        patience::within(self.patience(), work).await
    }

    /// Bounds a step of several statements that no request bounds.
    pub(crate) async fn step_within<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        patience::within(self.patience().saturating_mul(STEP), work).await
    }
}
