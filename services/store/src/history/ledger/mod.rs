//! The ledger on PostgreSQL and on SQLite.

mod counted;
mod keys;
mod order;
mod postgres;
mod sqlite;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::{
    Store,
    connection::store::LedgerPool,
    ledger::{Ledger, LedgerOptions},
};

impl Store {
    /// The ledger with the default options, the same for all handles of this store. Must be called
    /// on a tokio runtime.
    #[must_use]
    pub fn ledger(&self) -> Arc<dyn Ledger> {
        self.ledger_or_open(|| open_with(self, LedgerOptions::default()))
    }
}

/// Opens a further ledger of a store. On SQLite each has its own writer task, which ends with the
/// last handle, and calls of different ledgers share no commits. So use the one of
/// [`Store::ledger`], except to measure. Must be called on a tokio runtime.
#[must_use]
pub fn open_with(store: &Store, options: LedgerOptions) -> Arc<dyn Ledger> {
    match store.ledger_pool() {
        LedgerPool::Postgres(sessions) => {
            Arc::new(postgres::PostgresLedger::new(sessions.clone(), store.clock().clone()))
        }
        LedgerPool::Sqlite { read, write } => Arc::new(sqlite::SqliteLedger::new(
            read.clone(),
            write.clone(),
            store.clock().clone(),
            options,
        )),
    }
}
