//! Days as partitions. Dropping one takes a lock on its whole table, for the moment that changing
//! the catalogue takes: statements that come meanwhile wait behind it, so it waits for those before
//! it only briefly, and gives up for this time. The numbers of replays, which are not partitioned,
//! are deleted before, in the same transaction: however many they are, only who makes further ones
//! waits for that.

use std::collections::HashSet;

use outrider_migrations::partitions::{HISTORY, IDEMPOTENCY_KEYS, Table, of_day};
use outrider_model::Result;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, Statement};
use sqlx::PgConnection;

use super::{
    Gone, PENDING, Progress, REPLAYS, Step, begin_sweep, finds, give_up, id_range, is_blocked,
    is_held, is_late,
};
use crate::{
    Backend, Store,
    error::unavailable,
    ledger::{Settled, codec::day_of},
};

const DAYS: &str =
    "SELECT DISTINCT to_date(right(c.relname::text, 8), 'YYYYMMDD') - DATE '1970-01-01' AS day
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = ANY (string_to_array($1, ',')::regclass[]) AND c.relname ~ '_p[0-9]{8}$'
    AND to_date(right(c.relname::text, 8), 'YYYYMMDD') - DATE '1970-01-01' < $2
ORDER BY day";

/// The days below one of which a table of the history has a partition, oldest first.
pub(super) async fn days(database: &impl ConnectionTrait, until: i32) -> Result<Vec<i32>> {
    days_of(database, &HISTORY, until).await
}

async fn days_of(
    database: &impl ConnectionTrait,
    tables: &[Table],
    until: i32,
) -> Result<Vec<i32>> {
    let names: Vec<&str> = tables.iter().map(|table| table.name).collect();
    let values = [names.join(",").into(), until.into()];
    let statement = Statement::from_sql_and_values(Backend::Postgres.into(), DAYS, values);
    let rows = database.query_all_raw(statement).await.map_err(unavailable)?;
    rows.iter().map(|row| row.try_get_by_index(0).map_err(unavailable)).collect()
}

/// All tables at once. Nothing pending can come to refer to the day meanwhile: who retries a
/// delivery writes the number of the replay before anything else, and waits for the first of these
/// locks with nothing in hand.
pub(super) async fn drop_day(store: &Store, day: i32) -> Result<Step> {
    const NO_REPLAYS: &str = "LOCK TABLE replays IN SHARE ROW EXCLUSIVE MODE";
    let Some(transaction) = begin_sweep(store).await? else {
        return Ok(Step::nothing(Progress::Blocked));
    };
    if let Err(error) = transaction.execute_unprepared(NO_REPLAYS).await {
        return blocked(transaction, error).await;
    }
    if is_held(&transaction, day).await? {
        return give_up(transaction, Step::nothing(Progress::Held)).await;
    }
    let (from, until) = id_range(day);
    let replays = Statement::from_sql_and_values(
        Backend::Postgres.into(),
        REPLAYS,
        [from.into(), until.into()],
    );
    let rows = transaction.execute_raw(replays).await.map_err(unavailable)?.rows_affected();
    let mut gone = match drop_history(&transaction, day).await {
        Ok(Some(gone)) => gone,
        Ok(None) => return give_up(transaction, Step::nothing(Progress::Held)).await,
        Err(error) => return blocked(transaction, error).await,
    };
    gone.extend((rows > 0).then_some(Gone { table: "replays", partitions: 0, rows }));
    transaction.commit().await.map_err(unavailable)?;
    Ok(Step { gone, progress: Progress::Done })
}

/// What everybody waits for, whose cost does not grow with what is there. None when an event of the
/// day came meanwhile, and is pending.
async fn drop_history(
    transaction: &DatabaseTransaction,
    day: i32,
) -> Result<Option<Vec<Gone>>, DbErr> {
    lock(transaction, &HISTORY).await?;
    if finds(transaction, PENDING, day).await? {
        return Ok(None);
    }
    let mut gone = Vec::new();
    for table in &HISTORY {
        let there = drop_partition(transaction, table, day).await?;
        gone.extend(there.then_some(Gone { table: table.name, partitions: 1, rows: 0 }));
    }
    Ok(Some(gone))
}

/// The oldest day of keys below one.
pub(super) async fn drop_keys(store: &Store, until: i32) -> Result<Step> {
    let days = days_of(store.read(), &[IDEMPOTENCY_KEYS], until).await?;
    let Some(day) = days.first() else { return Ok(Step::nothing(Progress::Done)) };
    let Some(transaction) = begin_sweep(store).await? else {
        return Ok(Step::nothing(Progress::Blocked));
    };
    if let Err(error) = lock(&transaction, &[IDEMPOTENCY_KEYS]).await {
        return blocked(transaction, error).await;
    }
    match drop_partition(&transaction, &IDEMPOTENCY_KEYS, *day).await {
        Ok(there) => {
            transaction.commit().await.map_err(unavailable)?;
            let gone =
                there.then_some(Gone { table: IDEMPOTENCY_KEYS.name, partitions: 1, rows: 0 });
            let progress = if days.len() > 1 { Progress::More } else { Progress::Done };
            Ok(Step { gone: gone.into_iter().collect(), progress })
        }
        Err(error) => blocked(transaction, error).await,
    }
}

/// From here on everybody else waits.
const BRIEFLY: &str =
    "SET LOCAL statement_timeout = '2s'; SET LOCAL idle_in_transaction_session_timeout = '2s'";

/// The whole tables first, as everybody who uses a partition does.
async fn lock(transaction: &DatabaseTransaction, tables: &[Table]) -> Result<(), DbErr> {
    let names: Vec<String> = tables.iter().map(|table| format!("ONLY {}", table.name)).collect();
    let lock = format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", names.join(", "));
    transaction.execute_unprepared(&format!("{lock}; {BRIEFLY}")).await.map(drop)
}

/// Whether there was such a partition.
async fn drop_partition(
    transaction: &DatabaseTransaction,
    table: &Table,
    day: i32,
) -> Result<bool, DbErr> {
    let partition = of_day(std::slice::from_ref(table), day.into()).remove(0).name;
    let exists = format!("SELECT 1 WHERE to_regclass('{partition}') IS NOT NULL");
    if transaction
        .query_one_raw(Statement::from_string(Backend::Postgres.into(), exists))
        .await?
        .is_none()
    {
        return Ok(false);
    }
    // Only who uses the partition past its table is there now, as a backup or a vacuum does: nobody
    // waits for that one.
    let drop =
        format!("LOCK TABLE {partition} IN ACCESS EXCLUSIVE MODE NOWAIT; DROP TABLE {partition}");
    transaction.execute_unprepared(&drop).await?;
    tracing::info!(partition, "drops a partition: all in it is older than it is kept");
    Ok(true)
}

async fn blocked(transaction: DatabaseTransaction, error: DbErr) -> Result<Step> {
    let outcome = give_up(transaction, Step::nothing(Progress::Blocked)).await;
    if is_blocked(&error) || is_late(&error) { outcome } else { Err(unavailable(error)) }
}

/// Whether an attempt is of a day before it is reported, which may be gone since.
pub(crate) fn is_old(settled: &Settled) -> bool {
    settled.record.is_some() && day_of(settled.delivery.time()) < day_of(settled.at)
}

/// The same reports without the attempts of days that are gone: a report may come late, when its
/// delivery ended by another and its day was dropped since. None when there is no such attempt.
pub(crate) async fn without_forgotten(
    connection: &mut PgConnection,
    batch: &[Settled],
) -> Result<Option<Vec<Settled>>, sqlx::Error> {
    const DAYS: &str = "SELECT to_date(right(c.relname::text, 8), 'YYYYMMDD') - DATE '1970-01-01'
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'attempts'::regclass AND c.relname ~ '_p[0-9]{8}$'";
    let kept: HashSet<i32> =
        sqlx::query_scalar(DAYS).fetch_all(connection).await?.into_iter().collect();
    let is_forgotten =
        |settled: &Settled| is_old(settled) && !kept.contains(&day_of(settled.delivery.time()));
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
