//! Days as ranges of ids, deleted in chunks: one connection writes, and whoever publishes waits for a chunk at most.

use outrider_model::{
    Result, Timestamp,
    id::{time_of, uuid_bound},
};
use sea_orm::{ConnectionTrait, DatabaseTransaction, Statement, Value};
use uuid::Uuid;

use super::{Gone, Progress, Step, begin_sweep, give_up, id_range, is_held, note_dropped};
use crate::{Backend, Store, error::unavailable, ledger::codec::day_of};

/// Rows of each table deleted by one step, at most, and bytes of payloads or answers with them: each 4 KiB is a page to be freed. What is
/// of one millisecond goes together, however much it is.
const ROWS_AT_ONCE: usize = 500;
const BYTES: u64 = 4 * 1024 * 1024;

const NEXT: &str = "SELECT min(id) FROM (
    SELECT (SELECT min(id) FROM events WHERE id >= $1) AS id
    UNION ALL SELECT (SELECT min(id) FROM deliveries WHERE id >= $1)
    UNION ALL SELECT (SELECT min(id) FROM attempts WHERE id >= $1)
)";

/// A table of the history, and how large a row's payload or answer is.
const TABLES: [(&str, &str); 3] = [("events", "length(payload)"), ("deliveries", "0"), ("attempts", "length(response_body)")];

const KEYS: &str = "DELETE FROM idempotency_keys WHERE (project_id, key, day) IN (
    SELECT project_id, key, day FROM idempotency_keys WHERE day < $1 ORDER BY day LIMIT $2
)";

fn statement<const N: usize>(text: &str, values: [Value; N]) -> Statement {
    Statement::from_sql_and_values(Backend::Sqlite.into(), text, values)
}

/// The first day from one on of which there is history.
pub(super) async fn next_day(database: &impl ConnectionTrait, from: i32) -> Result<Option<i32>> {
    let from = if from <= 0 { Uuid::nil() } else { id_range(from).0 };
    let row = database.query_one_raw(statement(NEXT, [from.into()])).await.map_err(unavailable)?;
    let first: Option<Uuid> = row.map(|row| row.try_get_by_index(0)).transpose().map_err(unavailable)?.flatten();
    Ok(first.map(|id| day_of(time_of(id))))
}

/// The days below one of which there is history, oldest first.
pub(super) async fn days(database: &impl ConnectionTrait, until: i32) -> Result<Vec<i32>> {
    let (mut days, mut from) = (Vec::new(), i32::MIN);
    while let Some(day) = next_day(database, from).await?.filter(|day| *day < until) {
        days.push(day);
        from = day + 1;
    }
    Ok(days)
}

/// The day's first rows in all tables, up to a millisecond: an event goes together with its first deliveries and their attempts.
pub(super) async fn drop_day(store: &Store, day: i32) -> Result<Step> {
    let Some(transaction) = begin_sweep(store).await? else { return Ok(Step::nothing(Progress::Blocked)) };
    if is_held(&transaction, day).await? {
        return give_up(transaction, Step::nothing(Progress::Held)).await;
    }
    let (from, mut until) = id_range(day);
    let end = until;
    for (table, size) in TABLES {
        until = until.min(chunk_end(&transaction, table, size, (from, end)).await?);
    }
    let mut gone = Vec::new();
    for (table, _) in TABLES {
        let delete = format!("DELETE FROM {table} WHERE id >= $1 AND id < $2");
        let deleted = transaction.execute_raw(statement(&delete, [from.into(), until.into()])).await.map_err(unavailable)?;
        gone.push(Gone { table, partitions: 0, rows: deleted.rows_affected() });
    }
    gone.retain(|gone| gone.rows > 0);
    note_dropped(&transaction, day).await?;
    transaction.commit().await.map_err(unavailable)?;
    Ok(Step { gone, progress: if until < end { Progress::More } else { Progress::Done } })
}

/// Where a chunk of a table's rows ends: before the millisecond of the first row that is too much, but behind that of the first row.
async fn chunk_end(transaction: &DatabaseTransaction, table: &str, size: &str, (from, end): (Uuid, Uuid)) -> Result<Uuid> {
    let oldest = format!("SELECT id, {size} FROM {table} WHERE id >= $1 AND id < $2 ORDER BY id LIMIT {}", ROWS_AT_ONCE + 1);
    let rows = transaction.query_all_raw(statement(&oldest, [from.into(), end.into()])).await.map_err(unavailable)?;
    let (mut first, mut bytes) = (None, 0);
    for (index, row) in rows.iter().enumerate() {
        let id: Uuid = row.try_get_by_index(0).map_err(unavailable)?;
        let size: i64 = row.try_get_by_index(1).map_err(unavailable)?;
        let behind_first = uuid_bound(Timestamp(time_of(*first.get_or_insert(id)).0 + 1_000));
        bytes += size.unsigned_abs();
        if id >= behind_first && (index >= ROWS_AT_ONCE || bytes > BYTES) {
            return Ok(uuid_bound(time_of(id)));
        }
    }
    // All of them, or all that were read are of one millisecond.
    Ok(match first {
        Some(first) if rows.len() > ROWS_AT_ONCE => uuid_bound(Timestamp(time_of(first).0 + 1_000)),
        _ => end,
    })
}

pub(super) async fn delete_keys(store: &Store, until: i32) -> Result<Step> {
    store.delete("idempotency_keys", KEYS, until.into()).await
}
