//! Days as ranges of ids, deleted in chunks. There is one connection for writes, so publishing
//! waits for at most one chunk.

use std::time::Duration;

use outrider_model::{
    Result,
    id::{time_of, uuid_bound},
};
use sea_orm::{ConnectionTrait, DatabaseTransaction, Statement, Value};
use uuid::Uuid;

use super::{
    held::is_held,
    step::{DeletedRows, Progress, Step},
    sweep::{begin_sweep, delete_rows, give_up},
};
use crate::{
    Backend, Store,
    connection::error::unavailable,
    days::{day_of, id_range},
};

/// Maximum number of events or deliveries that a step deletes, unless one event has more, and the
/// maximum number of bytes of their payloads: every 4 KiB are a page to free.
const ROWS: i64 = 500;
const BYTES: i64 = 4 * 1024 * 1024;

const NEXT: &str = "SELECT min(id) FROM (
    SELECT (SELECT min(id) FROM events WHERE id >= $1) AS id
    UNION ALL SELECT (SELECT min(id) FROM deliveries WHERE id >= $1)
    UNION ALL SELECT (SELECT min(id) FROM attempts WHERE id >= $1)
)";

/// The oldest events of a range, with the rows and bytes of each.
const OLDEST_EVENTS: &str = "SELECT id, 1 + delivery_count, length(payload) FROM events \
    WHERE id >= $1 AND id < $2 ORDER BY id LIMIT $3";
/// The same for deliveries, which are replays once no events are left.
const OLDEST_DELIVERIES: &str =
    "SELECT id, 1, 0 FROM deliveries WHERE id >= $1 AND id < $2 ORDER BY id LIMIT $3";
const OLDEST_ATTEMPTS: &str = "SELECT id, 1, length(response_body) FROM attempts \
    WHERE id >= $1 AND id < $2 ORDER BY id LIMIT $3";

/// Deletes what belongs to the events from $1 to $2, and then the events. $3 and $4 are the bounds
/// of the ids of their milliseconds.
const WITH_EVENTS: [(&str, &str); 4] = [
    (
        "attempts",
        "DELETE FROM attempts WHERE id >= $3 AND id < $4 AND event_id >= $1 AND event_id <= $2",
    ),
    (
        "deliveries",
        "DELETE FROM deliveries WHERE id >= $3 AND id < $4 AND event_id >= $1 AND event_id <= $2",
    ),
    ("replays", "DELETE FROM replays WHERE event_id >= $1 AND event_id <= $2"),
    ("events", "DELETE FROM events WHERE id >= $1 AND id <= $2"),
];
/// The same for deliveries.
const WITH_DELIVERIES: [(&str, &str); 3] = [
    (
        "attempts",
        "DELETE FROM attempts \
         WHERE id >= $3 AND id < $4 AND delivery_id >= $1 AND delivery_id <= $2",
    ),
    (
        "replays",
        "DELETE FROM replays WHERE event_id < $4 AND delivery_id >= $1 AND delivery_id <= $2",
    ),
    ("deliveries", "DELETE FROM deliveries WHERE id >= $1 AND id <= $2"),
];
const WITH_ATTEMPTS: [(&str, &str); 1] =
    [("attempts", "DELETE FROM attempts WHERE id >= $1 AND id <= $2")];

const KEYS: &str = "DELETE FROM idempotency_keys WHERE (project_id, key, day) IN (
    SELECT project_id, key, day FROM idempotency_keys WHERE day < $1 ORDER BY day LIMIT $2
)";

fn statement<const N: usize>(text: &str, values: [Value; N]) -> Statement {
    Statement::from_sql_and_values(Backend::Sqlite.into(), text, values)
}

/// The first day with history, from a day on.
pub(super) async fn next_day(database: &impl ConnectionTrait, from: i32) -> Result<Option<i32>> {
    let from = if from <= 0 { Uuid::nil() } else { id_range(from).0 };
    let row = database.query_one_raw(statement(NEXT, [from.into()])).await.map_err(unavailable)?;
    let first: Option<Uuid> =
        row.map(|row| row.try_get_by_index(0)).transpose().map_err(unavailable)?.flatten();
    Ok(first.map(|id| day_of(time_of(id))))
}

/// The days before `until` with history, oldest first.
pub(super) async fn days(database: &impl ConnectionTrait, until: i32) -> Result<Vec<i32>> {
    let (mut days, mut from) = (Vec::new(), i32::MIN);
    while let Some(day) = next_day(database, from).await?.filter(|day| *day < until) {
        days.push(day);
        from = day + 1;
    }
    Ok(days)
}

/// Deletes some of the day's events. Without events, some of its deliveries, which are replays.
/// Then attempts whose delivery ended in another way.
pub(super) async fn drop_day(store: &Store, day: i32) -> Result<Step> {
    let Some(transaction) = begin_sweep(store).await? else {
        return Ok(Step::nothing(Progress::Blocked));
    };
    if is_held(&transaction, day).await? {
        return give_up(transaction, Step::nothing(Progress::Held)).await;
    }
    let kinds: [(&str, &[(&str, &str)]); 3] = [
        (OLDEST_EVENTS, &WITH_EVENTS),
        (OLDEST_DELIVERIES, &WITH_DELIVERIES),
        (OLDEST_ATTEMPTS, &WITH_ATTEMPTS),
    ];
    for (oldest, deletes) in kinds {
        if let Some((first, last)) = oldest_of(&transaction, oldest, day).await? {
            let gone = delete(&transaction, deletes, first, last).await?;
            transaction.commit().await.map_err(unavailable)?;
            return Ok(Step { gone, progress: Progress::More });
        }
    }
    give_up(transaction, Step::nothing(Progress::Done)).await
}

/// The first and the last id that one step deletes.
async fn oldest_of(
    transaction: &DatabaseTransaction,
    oldest: &str,
    day: i32,
) -> Result<Option<(Uuid, Uuid)>> {
    let (from, until) = id_range(day);
    let found = transaction
        .query_all_raw(statement(oldest, [from.into(), until.into(), ROWS.into()]))
        .await
        .map_err(unavailable)?;
    let (mut range, mut rows, mut bytes) = (None, 0, 0);
    for row in &found {
        let id: Uuid = row.try_get_by_index(0).map_err(unavailable)?;
        rows += row.try_get_by_index::<i64>(1).map_err(unavailable)?;
        bytes += row.try_get_by_index::<i64>(2).map_err(unavailable)?;
        if range.is_some() && (rows > ROWS || bytes > BYTES) {
            break;
        }
        range = Some((range.map_or(id, |(first, _)| first), id));
    }
    Ok(range)
}

async fn delete(
    transaction: &DatabaseTransaction,
    deletes: &[(&'static str, &str)],
    first: Uuid,
    last: Uuid,
) -> Result<Vec<DeletedRows>> {
    let milliseconds =
        [uuid_bound(time_of(first)), uuid_bound(time_of(last).plus(Duration::from_millis(1)))];
    let mut gone = Vec::new();
    for (table, delete) in deletes {
        let values = [first, last, milliseconds[0], milliseconds[1]].map(Value::from);
        let rows = transaction
            .execute_raw(statement(delete, values))
            .await
            .map_err(unavailable)?
            .rows_affected();
        gone.extend((rows > 0).then_some(DeletedRows { table, partitions: 0, rows }));
    }
    Ok(gone)
}

pub(super) async fn delete_keys(store: &Store, until: i32) -> Result<Step> {
    delete_rows(store, "idempotency_keys", KEYS, until.into()).await
}
