//! Retention: what goes when it is older than it is kept. Days of history that nothing pending
//! refers to, idempotency keys, numbers of replays, the feed of changes; payloads that a project
//! keeps no longer are erased in `queries/erase.rs`.
//!
//! Every call is one bounded step, safe to repeat, and may be made by several processes: on
//! PostgreSQL whoever takes a step holds an advisory lock, others find it taken and leave it at
//! that. A day of history is a partition of each table on PostgreSQL, and goes by chunks of rows on
//! SQLite. Whether a pending delivery holds a day costs a descent into an index and one for each
//! replay of the day's events, not a pass over what is pending: the ids of an event's deliveries
//! bear the event's time, and those of replays, which do not, stand in `replays`.

mod owner;
mod postgres;
mod sqlite;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use outrider_model::{Result, Timestamp, id::uuid_bound};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, RuntimeErr, Statement, sqlx};
use uuid::Uuid;

use crate::{Backend, Store, error::unavailable, ledger::codec::day_of, transaction::begin_beside};

pub use owner::Dropped;
pub(crate) use postgres::{is_old, without_forgotten};

/// The advisory lock of whoever sweeps: "outrswep" in ASCII.
const LOCK: i64 = 0x6f75_7472_7377_6570;
/// Rows deleted by one step where no payload is among them.
const ROWS: u64 = 1_000;
const DAY_MICROS: i64 = 86_400_000_000;

/// A row when a delivery of a day is pending.
const PENDING: &str =
    "SELECT 1 WHERE EXISTS (SELECT 1 FROM pending_deliveries WHERE id >= $1 AND id < $2)";
/// A row when there is one that is a replay of an event of the day.
const REPLAYED: &str = "SELECT 1 WHERE EXISTS (
    SELECT 1 FROM replays r JOIN pending_deliveries p ON p.id = r.delivery_id WHERE r.event_id >= $1 AND r.event_id < $2
)";

/// The numbers of replays of a day's events, and of those that are the day's deliveries, which are
/// of older events.
const REPLAYS: &str = "DELETE FROM replays WHERE (event_id >= $1 AND event_id < $2) OR (delivery_id >= $1 AND delivery_id < $2)";

/// The last change stays: it is where directories that saw everything stand, and what the next
/// number is counted from.
const CHANGES: &str = "DELETE FROM changes WHERE seq < (SELECT max(seq) FROM changes) AND seq IN (
    SELECT seq FROM (SELECT seq, at FROM changes ORDER BY seq LIMIT $2) oldest WHERE at < $1
)";

/// What went, of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    pub table: &'static str,
    /// Dropped whole.
    pub partitions: u64,
    /// Deleted one by one.
    pub rows: u64,
}

/// How far a step came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There is nothing more to do now.
    Done,
    /// There may be more.
    More,
    /// Somebody pending came to refer to it.
    Held,
    /// Another process is at it, or uses what is to go: a later sweep tries again.
    Blocked,
}

/// What a step did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub gone: Vec<Gone>,
    pub progress: Progress,
}

impl Step {
    fn nothing(progress: Progress) -> Self {
        Self { gone: Vec::new(), progress }
    }

    /// Rows of a table; there may be more when it was as many as a step takes.
    fn rows(table: &'static str, rows: u64) -> Self {
        let progress = if rows >= ROWS { Progress::More } else { Progress::Done };
        Self {
            gone: (rows > 0).then_some(Gone { table, partitions: 0, rows }).into_iter().collect(),
            progress,
        }
    }
}

/// The first id of a day, and the first of the next.
pub(crate) fn id_range(day: i32) -> (Uuid, Uuid) {
    let midnight = |day: i64| uuid_bound(Timestamp(day.saturating_mul(DAY_MICROS)));
    (midnight(day.into()), midnight(i64::from(day) + 1))
}

impl Store {
    /// The days of history whose last moment is older than `before`, oldest first; in days from
    /// 1970-01-01 in UTC.
    pub async fn old_days(&self, before: Timestamp) -> Result<Vec<i32>> {
        let until = day_of(before);
        match self.backend() {
            Backend::Postgres => self.within(postgres::days(self.read(), until)).await,
            Backend::Sqlite => sqlite::days(self.read(), until).await,
        }
    }

    /// Whether something pending refers to a day. Who means to drop it asks this first, which keeps
    /// nobody waiting.
    pub async fn is_day_held(&self, day: i32) -> Result<bool> {
        self.within(is_held(self.read(), day)).await
    }

    /// The oldest day of which history is kept, in days from 1970-01-01 in UTC.
    pub async fn oldest_day(&self) -> Result<Option<i32>> {
        self.step_within(async {
            match self.backend() {
                Backend::Postgres => {
                    Ok(postgres::days(self.read(), i32::MAX).await?.first().copied())
                }
                Backend::Sqlite => sqlite::next_day(self.read(), i32::MIN).await,
            }
        })
        .await
    }

    /// Drops a day of history, or on SQLite some of its events, unless something pending refers to
    /// it: then nothing. Events go with their deliveries, attempts and numbers of replays at once,
    /// so that the ledger adds up at every moment.
    pub async fn drop_day(&self, day: i32) -> Result<Step> {
        self.step_within(async {
            match self.backend() {
                Backend::Postgres => postgres::drop_day(self, day).await,
                Backend::Sqlite => sqlite::drop_day(self, day).await,
            }
        })
        .await
    }

    /// Drops idempotency keys of days in which none is good at `keys_since` any more.
    pub async fn prune_keys(&self, keys_since: Timestamp) -> Result<Step> {
        self.step_within(async {
            // Near midnight a key also stands in the day before its own.
            let until = day_of(keys_since) - 1;
            match self.backend() {
                Backend::Postgres => postgres::drop_keys(self, until).await,
                Backend::Sqlite => sqlite::delete_keys(self, until).await,
            }
        })
        .await
    }

    /// Forgets changes of configuration from before `before`, but never the last one. A directory
    /// that has not read one that is gone notices, and begins anew.
    pub async fn prune_changes(&self, before: Timestamp) -> Result<Step> {
        self.step_within(self.delete("changes", CHANGES, before.0)).await
    }

    async fn delete(&self, table: &'static str, statement: &str, until: i64) -> Result<Step> {
        let Some(transaction) = begin_sweep(self).await? else {
            return Ok(Step::nothing(Progress::Blocked));
        };
        let limit = i64::try_from(ROWS).unwrap_or(i64::MAX).into();
        let statement =
            Statement::from_sql_and_values(self.backend().into(), statement, [until.into(), limit]);
        let deleted =
            transaction.execute_raw(statement).await.map_err(unavailable)?.rows_affected();
        transaction.commit().await.map_err(unavailable)?;
        Ok(Step::rows(table, deleted))
    }
}

/// A transaction of whoever sweeps; none when another process does. On PostgreSQL it waits for
/// locks only briefly: whoever publishes or settles stands behind it meanwhile.
pub(crate) async fn begin_sweep(store: &Store) -> Result<Option<DatabaseTransaction>> {
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

/// The outcome of a step that changes nothing. The transaction ends here and not when its
/// connection is used again: it has locks.
pub(crate) async fn give_up<T>(transaction: DatabaseTransaction, outcome: T) -> Result<T> {
    transaction.rollback().await.map_err(unavailable)?;
    Ok(outcome)
}

/// Whether somebody else has what a statement wanted: lock_not_available, deadlock_detected.
pub(crate) fn is_blocked(error: &DbErr) -> bool {
    code(error).is_some_and(|code| code == "55P03" || code == "40P01")
}

/// Whether a statement took longer than it may: query_canceled.
fn is_late(error: &DbErr) -> bool {
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

async fn is_held(database: &impl ConnectionTrait, day: i32) -> Result<bool> {
    let is_held =
        async { Ok(finds(database, PENDING, day).await? || finds(database, REPLAYED, day).await?) };
    is_held.await.map_err(unavailable)
}

/// Whether a statement over a day's ids answers a row.
async fn finds(
    database: &impl ConnectionTrait,
    statement: &str,
    day: i32,
) -> std::result::Result<bool, DbErr> {
    let (from, until) = id_range(day);
    let statement = Statement::from_sql_and_values(
        database.get_database_backend(),
        statement,
        [from.into(), until.into()],
    );
    Ok(database.query_one_raw(statement).await?.is_some())
}
