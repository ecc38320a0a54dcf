//! How transactions that write begin.

use outrider_model::Result;
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, SqliteTransactionMode, Statement, TransactionOptions,
    TransactionTrait,
};

use super::{backend::Backend, error::unavailable, store::Store};

/// PostgreSQL's advisory lock that orders configuration changes: "outrider" in ASCII.
pub(crate) const LOCK: i64 = 0x6f75_7472_6964_6572;

/// Begins a transaction that excludes all others of this kind, in any process. On PostgreSQL it
/// holds an advisory lock until the commit, so that changes are in the order of their commits and
/// what was read is still true at the time of writing. On SQLite it takes the write lock at the
/// start, so that it waits for the lock and is never refused halfway.
pub(crate) async fn begin(store: &Store) -> Result<DatabaseTransaction> {
    let transaction = begin_beside(store).await?;
    lock(store, &transaction).await?;
    Ok(transaction)
}

/// The same without a statement timeout, for work that an operator asked for: it may take as long
/// as it needs, and wait as long for the lock.
pub(crate) async fn begin_unhurried(store: &Store) -> Result<DatabaseTransaction> {
    let transaction = begin_unhurried_beside(store).await?;
    lock(store, &transaction).await?;
    Ok(transaction)
}

/// Begins a transaction without a statement timeout and without the lock.
pub(crate) async fn begin_unhurried_beside(store: &Store) -> Result<DatabaseTransaction> {
    let transaction = begin_beside(store).await?;
    if store.backend() == Backend::Postgres {
        transaction
            .execute_unprepared("SET LOCAL statement_timeout = 0")
            .await
            .map_err(unavailable)?;
    }
    Ok(transaction)
}

async fn lock(store: &Store, transaction: &DatabaseTransaction) -> Result<()> {
    if store.backend() == Backend::Postgres {
        let lock = Statement::from_sql_and_values(
            Backend::Postgres.into(),
            "SELECT pg_advisory_xact_lock($1)",
            [LOCK.into()],
        );
        transaction.query_one_raw(lock).await.map_err(unavailable)?;
    }
    Ok(())
}

/// Begins a transaction that excludes no others on PostgreSQL. On SQLite it is the only one that
/// writes.
pub(crate) async fn begin_beside(store: &Store) -> Result<DatabaseTransaction> {
    store.write().begin_with_options(writing()).await.map_err(unavailable)
}

/// The options of a transaction that writes.
pub(crate) fn writing() -> TransactionOptions {
    TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    }
}
