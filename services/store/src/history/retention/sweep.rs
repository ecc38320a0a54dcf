//! The transactions of a sweep.

use std::borrow::Cow;

use outrider_model::Result;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, RuntimeErr, Statement, sqlx};

use super::step::{Progress, ROWS, Step};
use crate::{
    Backend, Store,
    connection::{error::unavailable, transaction::begin_beside},
};

/// The advisory lock of the process that sweeps: "outrswep" in ASCII.
const LOCK: i64 = 0x6f75_7472_7377_6570;

/// Begins a transaction of a sweep. None if another process is sweeping. On PostgreSQL it waits for
/// locks only briefly, because publishing and settling wait behind it meanwhile.
pub(super) async fn begin_sweep(store: &Store) -> Result<Option<DatabaseTransaction>> {
    const PATIENCE: &str = "SET LOCAL lock_timeout = '500ms'; SET LOCAL enable_seqscan = off";
    let transaction = begin_beside(store).await?;
    if store.backend() == Backend::Sqlite {
        return Ok(Some(transaction));
    }
    let lock = Statement::from_sql_and_values(
        Backend::Postgres.into(),
        "SELECT pg_try_advisory_xact_lock($1)",
        [LOCK.into()],
    );
    let row = transaction.query_one_raw(lock).await.map_err(unavailable)?;
    let alone: Option<bool> =
        row.map(|row| row.try_get_by_index(0)).transpose().map_err(unavailable)?;
    if alone != Some(true) {
        return give_up(transaction, None).await;
    }
    transaction.execute_unprepared(PATIENCE).await.map_err(unavailable)?;
    Ok(Some(transaction))
}

/// Ends the transaction of a step that changes nothing. If it were only dropped, its locks would be
/// held until its connection is used again.
pub(super) async fn give_up<T>(transaction: DatabaseTransaction, outcome: T) -> Result<T> {
    transaction.rollback().await.map_err(unavailable)?;
    Ok(outcome)
}

/// Whether somebody else holds a lock that a statement needed: lock_not_available,
/// deadlock_detected.
pub(super) fn is_blocked(error: &DbErr) -> bool {
    code(error).is_some_and(|code| code == "55P03" || code == "40P01")
}

/// Whether a statement ran into its timeout: query_canceled.
pub(super) fn is_late(error: &DbErr) -> bool {
    code(error).is_some_and(|code| code == "57014")
}

fn code(error: &DbErr) -> Option<Cow<'_, str>> {
    let (DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) =
        error
    else {
        return None;
    };
    let sqlx::Error::Database(error) = error.as_ref() else { return None };
    error.code()
}

/// Deletes rows of a table by one statement, whose parameters are `until` and a limit.
pub(super) async fn delete_rows(
    store: &Store,
    table: &'static str,
    statement: &str,
    until: i64,
) -> Result<Step> {
    let Some(transaction) = begin_sweep(store).await? else {
        return Ok(Step::nothing(Progress::Blocked));
    };
    let limit = i64::try_from(ROWS).unwrap_or(i64::MAX).into();
    let statement =
        Statement::from_sql_and_values(store.backend().into(), statement, [until.into(), limit]);
    let deleted = transaction.execute_raw(statement).await.map_err(unavailable)?.rows_affected();
    transaction.commit().await.map_err(unavailable)?;
    Ok(Step::rows(table, deleted))
}
