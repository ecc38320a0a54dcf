//! Days as partitions. Dropping one locks its whole table while the catalog changes. Statements
//! that come meanwhile wait behind that lock, so the step waits for earlier ones only briefly, and
//! then gives up until later. Replay numbers, which are not partitioned, are deleted first in the
//! same transaction. However many there are, only calls that create further replays wait for that.

use outrider_migrations::partitions::{HISTORY, IDEMPOTENCY_KEYS, Table, of_day};
use outrider_model::Result;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, Statement};

use super::{
    held::{PENDING, finds, is_held},
    step::{DeletedRows, Progress, Step},
    sweep::{begin_sweep, give_up, is_blocked, is_late},
};
use crate::{Backend, Store, connection::error::unavailable, days::id_range};

/// Deletes the replay numbers of the day's events, and of the day's deliveries, which belong to
/// older events.
const REPLAYS: &str = "DELETE FROM replays \
    WHERE (event_id >= $1 AND event_id < $2) OR (delivery_id >= $1 AND delivery_id < $2)";

const DAYS: &str =
    "SELECT DISTINCT to_date(right(c.relname::text, 8), 'YYYYMMDD') - DATE '1970-01-01' AS day
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = ANY (string_to_array($1, ',')::regclass[]) AND c.relname ~ '_p[0-9]{8}$'
    AND to_date(right(c.relname::text, 8), 'YYYYMMDD') - DATE '1970-01-01' < $2
ORDER BY day";

/// The days before `until` for which a table of history has a partition, oldest first.
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

/// Drops a day from all tables at once. No new pending delivery can refer to the day meanwhile: a
/// retry writes the replay number before anything else, so it waits for the first of these locks
/// while it holds nothing.
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
    gone.extend((rows > 0).then_some(DeletedRows { table: "replays", partitions: 0, rows }));
    transaction.commit().await.map_err(unavailable)?;
    Ok(Step { gone, progress: Progress::Done })
}

/// The part that everybody waits for. Its cost does not grow with the amount of data. None if an
/// event of the day came meanwhile and is pending.
async fn drop_history(
    transaction: &DatabaseTransaction,
    day: i32,
) -> Result<Option<Vec<DeletedRows>>, DbErr> {
    lock(transaction, &HISTORY).await?;
    if finds(transaction, PENDING, day).await? {
        return Ok(None);
    }
    let mut gone = Vec::new();
    for table in &HISTORY {
        let there = drop_partition(transaction, table, day).await?;
        gone.extend(there.then_some(DeletedRows { table: table.name, partitions: 1, rows: 0 }));
    }
    Ok(Some(gone))
}

/// Drops the oldest day of keys before `until`.
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
            let gone = there.then_some(DeletedRows {
                table: IDEMPOTENCY_KEYS.name,
                partitions: 1,
                rows: 0,
            });
            let progress = if days.len() > 1 { Progress::More } else { Progress::Done };
            Ok(Step { gone: gone.into_iter().collect(), progress })
        }
        Err(error) => blocked(transaction, error).await,
    }
}

/// Bounds the time for which everybody else waits.
const BRIEFLY: &str =
    "SET LOCAL statement_timeout = '2s'; SET LOCAL idle_in_transaction_session_timeout = '2s'";

/// Locks the whole tables first, as everybody who uses a partition does.
async fn lock(transaction: &DatabaseTransaction, tables: &[Table]) -> Result<(), DbErr> {
    let names: Vec<String> = tables.iter().map(|table| format!("ONLY {}", table.name)).collect();
    let lock = format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", names.join(", "));
    transaction.execute_unprepared(&format!("{lock}; {BRIEFLY}")).await.map(drop)
}

/// Drops a partition. Returns whether it existed.
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
    // Now the partition can only be in use directly, without its table, as by a backup or a vacuum.
    // NOWAIT, so that nobody waits for these.
    let drop =
        format!("LOCK TABLE {partition} IN ACCESS EXCLUSIVE MODE NOWAIT; DROP TABLE {partition}");
    transaction.execute_unprepared(&drop).await?;
    tracing::info!(partition, "dropping a partition: all its rows are older than they are kept");
    Ok(true)
}

async fn blocked(transaction: DatabaseTransaction, error: DbErr) -> Result<Step> {
    let outcome = give_up(transaction, Step::nothing(Progress::Blocked)).await;
    if is_blocked(&error) || is_late(&error) { outcome } else { Err(unavailable(error)) }
}
