//! Days as ranges of ids, deleted in chunks: one connection writes, and whoever publishes waits for a chunk at most.

use outrider_model::{EventId, Result, id::time_of};
use sea_orm::{ConnectionTrait, DatabaseTransaction, Statement, Value};
use uuid::Uuid;

use super::{Gone, Progress, Step, begin_sweep, give_up, id_range, is_held};
use crate::{Backend, Store, error::unavailable, ledger::codec::day_of};

/// Events deleted by one step, at most, and bytes of payloads or answers with them: each 4 KiB is a page to be freed.
const EVENTS: usize = 500;
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

/// A chunk of the day's events; when there are none, of its deliveries; then of its attempts.
pub(super) async fn drop_day(store: &Store, day: i32) -> Result<Step> {
    let Some(transaction) = begin_sweep(store).await? else { return Ok(Step::nothing(Progress::Blocked)) };
    if is_held(&transaction, day).await? {
        return give_up(transaction, Step::nothing(Progress::Held)).await;
    }
    for (table, size) in TABLES {
        let rows = delete_chunk(&transaction, table, size, day).await?;
        if rows > 0 {
            transaction.commit().await.map_err(unavailable)?;
            return Ok(Step { gone: vec![Gone { table, partitions: 0, rows }], progress: Progress::More });
        }
    }
    give_up(transaction, Step::nothing(Progress::Done)).await
}

async fn delete_chunk(transaction: &DatabaseTransaction, table: &str, size: &str, day: i32) -> Result<u64> {
    let (from, until) = id_range(day);
    let oldest = format!("SELECT id, {size} FROM {table} WHERE id >= $1 AND id < $2 ORDER BY id LIMIT {EVENTS}");
    let rows = transaction.query_all_raw(statement(&oldest, [from.into(), until.into()])).await.map_err(unavailable)?;
    let (mut last, mut bytes) = (None, 0);
    for row in &rows {
        let size: i64 = row.try_get_by_index(1).map_err(unavailable)?;
        bytes += size.unsigned_abs();
        if bytes > BYTES && last.is_some() {
            break;
        }
        last = Some(EventId(row.try_get_by_index(0).map_err(unavailable)?));
    }
    let Some(last) = last else { return Ok(0) };
    let delete = format!("DELETE FROM {table} WHERE id >= $1 AND id <= $2");
    let deleted = transaction.execute_raw(statement(&delete, [from.into(), last.0.into()])).await.map_err(unavailable)?;
    Ok(deleted.rows_affected())
}

pub(super) async fn delete_keys(store: &Store, until: i32) -> Result<Step> {
    store.delete("idempotency_keys", KEYS, until.into()).await
}
