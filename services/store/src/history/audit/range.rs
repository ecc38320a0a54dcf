//! The ranges that an audit is divided into, and the transactions that read them.

use std::cmp::min;

use outrider_model::Result;
use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseTransaction, IsolationLevel, TransactionOptions,
    TransactionTrait,
};
use uuid::Uuid;

use super::{scope::AuditScope, statements};
use crate::{Backend, Store, connection::error::unavailable};

/// Makes PostgreSQL plan the audit once per session, whatever the statistics. Every table is read
/// by a range of its index, in order. Joins are between two such ranges as a whole, which a nested
/// loop would multiply. Look-ups outside of the range are index descents of a subquery. The audit
/// uses no further processors and compiles nothing. The lock, which only the sweep waits for, is
/// taken before the snapshot, so that no day is dropped between the snapshot and the reads.
const PLANNER: &str = "SET LOCAL plan_cache_mode = force_generic_plan; \
    SET LOCAL enable_nestloop = off; SET LOCAL enable_bitmapscan = off; \
    SET LOCAL enable_seqscan = off; SET LOCAL max_parallel_workers_per_gather = 0; \
    SET LOCAL jit = off; \
    LOCK TABLE ONLY events, ONLY attempts, ONLY deliveries IN ACCESS SHARE MODE";
/// Begins a transaction that reads one state of the database.
pub(super) async fn snapshot(store: &Store) -> Result<DatabaseTransaction> {
    // On SQLite the first statement takes the snapshot.
    let options = match store.backend() {
        Backend::Postgres => TransactionOptions {
            isolation_level: Some(IsolationLevel::RepeatableRead),
            access_mode: Some(AccessMode::ReadOnly),
            ..TransactionOptions::default()
        },
        Backend::Sqlite => TransactionOptions::default(),
    };
    let transaction = store.read().begin_with_options(options).await.map_err(unavailable)?;
    if store.backend() == Backend::Postgres {
        transaction.execute_unprepared(PLANNER).await.map_err(unavailable)?;
    }
    Ok(transaction)
}

/// The end of the first range of a scope. The range has about as many rows as wanted in the table
/// with the most rows, and ends between milliseconds.
pub(super) async fn range_end(
    transaction: &DatabaseTransaction,
    scope: AuditScope,
) -> Result<Uuid> {
    let Some(first) = statements::nth(transaction, scope, scope.rows).await? else {
        return Ok(scope.until);
    };
    let end = millisecond(first);
    if end > scope.from {
        return Ok(end);
    }
    Ok(min(
        scope.until,
        Uuid::from_u128((millisecond(scope.from).as_u128() >> 80).saturating_add(1) << 80),
    ))
}

/// The first id of the millisecond of the oldest row. Everything older was dropped.
pub(super) async fn floor(transaction: &DatabaseTransaction) -> Result<Uuid> {
    Ok(statements::nth(transaction, AuditScope::ALL, 0).await?.map_or(Uuid::max(), millisecond))
}

fn millisecond(id: Uuid) -> Uuid {
    Uuid::from_u128(id.as_u128() >> 80 << 80)
}
