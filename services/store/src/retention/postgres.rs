//! Days as partitions. Dropping one takes a lock on its whole table, for the moment that changing the catalogue takes: statements that
//! come meanwhile wait behind it, so it waits for those before it only briefly, and gives up for this time.

use outrider_migrations::partitions::{HISTORY, IDEMPOTENCY_KEYS, Table, of_day};
use outrider_model::Result;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, Statement};
use sqlx::PgPool;

use super::{Gone, Progress, Step, begin_sweep, give_up, is_blocked, is_held, note_dropped};
use crate::{
    Backend, Store,
    error::unavailable,
    ledger::{Settled, codec::day_of},
};

const DAYS: &str = "SELECT DISTINCT to_date(right(c.relname::text, 8), 'YYYYMMDD') - DATE '1970-01-01' AS day
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = ANY (string_to_array($1, ',')::regclass[]) AND c.relname ~ '_p[0-9]{8}$'
    AND to_date(right(c.relname::text, 8), 'YYYYMMDD') - DATE '1970-01-01' < $2
ORDER BY day";

/// The days below one of which a table of the history has a partition, oldest first.
pub(super) async fn days(database: &impl ConnectionTrait, until: i32) -> Result<Vec<i32>> {
    days_of(database, &HISTORY, until).await
}

async fn days_of(database: &impl ConnectionTrait, tables: &[Table], until: i32) -> Result<Vec<i32>> {
    let names: Vec<&str> = tables.iter().map(|table| table.name).collect();
    let values = [names.join(",").into(), until.into()];
    let statement = Statement::from_sql_and_values(Backend::Postgres.into(), DAYS, values);
    let rows = database.query_all_raw(statement).await.map_err(unavailable)?;
    rows.iter().map(|row| row.try_get_by_index(0).map_err(unavailable)).collect()
}

/// The day's partitions go together: nobody sees deliveries without their events.
pub(super) async fn drop_day(store: &Store, day: i32) -> Result<Step> {
    drop_partitions(store, &HISTORY, day).await
}

/// The oldest day of keys below one.
pub(super) async fn drop_keys(store: &Store, until: i32) -> Result<Step> {
    let days = days_of(store.read(), &[IDEMPOTENCY_KEYS], until).await?;
    let Some(day) = days.first() else { return Ok(Step::nothing(Progress::Done)) };
    let step = drop_partitions(store, &[IDEMPOTENCY_KEYS], *day).await?;
    let more = step.progress == Progress::Done && days.len() > 1;
    Ok(Step { progress: if more { Progress::More } else { step.progress }, ..step })
}

async fn drop_partitions(store: &Store, tables: &[Table], day: i32) -> Result<Step> {
    let Some(transaction) = begin_sweep(store).await? else { return Ok(Step::nothing(Progress::Blocked)) };
    // The whole tables first, as everybody who uses the partitions does; who retries a delivery holds its event's until the pending row
    // is there.
    let names: Vec<String> = tables.iter().map(|table| format!("ONLY {}", table.name)).collect();
    let lock = format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", names.join(", "));
    if let Err(error) = transaction.execute_unprepared(&lock).await {
        return blocked(transaction, error).await;
    }
    if tables == HISTORY {
        if is_held(&transaction, day).await? {
            return give_up(transaction, Step::nothing(Progress::Held)).await;
        }
        note_dropped(&transaction, day).await?;
    }
    let mut gone = Vec::new();
    for (table, partition) in tables.iter().zip(of_day(tables, day.into())) {
        let name = partition.name;
        let exists = format!("SELECT 1 WHERE to_regclass('{name}') IS NOT NULL");
        let exists = Statement::from_string(Backend::Postgres.into(), exists);
        if transaction.query_one_raw(exists).await.map_err(unavailable)?.is_none() {
            continue;
        }
        // Only who uses the partition past its table is there now, as a backup or a vacuum does: nobody waits for that one.
        let drop = format!("LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE NOWAIT; DROP TABLE {name}");
        if let Err(error) = transaction.execute_unprepared(&drop).await {
            return blocked(transaction, error).await;
        }
        gone.push(Gone { table: table.name, partitions: 1, rows: 0 });
    }
    transaction.commit().await.map_err(unavailable)?;
    tracing::info!(day, tables = gone.len(), "dropped the partitions of a day: all in them was older than it is kept");
    Ok(Step { gone, progress: Progress::Done })
}

async fn blocked(transaction: DatabaseTransaction, error: DbErr) -> Result<Step> {
    let outcome = give_up(transaction, Step::nothing(Progress::Blocked)).await;
    if is_blocked(&error) { outcome } else { Err(unavailable(error)) }
}

/// The same reports without the attempts of days that are gone: a report may come late, when its delivery ended by another and its day was
/// dropped since. None when there is no such attempt.
pub(crate) async fn without_forgotten(pool: &PgPool, batch: &[Settled]) -> Result<Option<Vec<Settled>>, sqlx::Error> {
    const OLDEST: &str = "SELECT min(to_date(right(c.relname::text, 8), 'YYYYMMDD') - DATE '1970-01-01')
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'attempts'::regclass AND c.relname ~ '_p[0-9]{8}$'";
    let is_old = |settled: &Settled| settled.record.is_some() && day_of(settled.delivery.time()) < day_of(settled.at);
    if !batch.iter().any(is_old) {
        return Ok(None);
    }
    let oldest: Option<i32> = sqlx::query_scalar(OLDEST).fetch_one(pool).await?;
    let Some(oldest) = oldest else { return Ok(None) };
    let is_forgotten = |settled: &Settled| settled.record.is_some() && day_of(settled.delivery.time()) < oldest;
    if !batch.iter().any(is_forgotten) {
        return Ok(None);
    }
    let mut rest = batch.to_vec();
    for settled in rest.iter_mut().filter(|settled| is_forgotten(settled)) {
        tracing::warn!(delivery_id = %settled.delivery, "an attempt is reported whose day is not kept any more; it is not recorded");
        settled.record = None;
    }
    Ok(Some(rest))
}
