//! The statements of the feeder and the workers: what is due, what is queued, and the current row
//! of a job.

use std::{collections::HashMap, sync::LazyLock};

use bytes::Bytes;
use outrider_model::{DeliveryId, EndpointId, EndpointState, EventId, ProjectId, Timestamp};
use sqlx::{Row, SqliteConnection, SqlitePool, sqlite::SqliteRow};
use uuid::Uuid;

use super::errors::failed;
use crate::{
    history::{
        chunked::{Bound, Chunked},
        codec::{corrupt, count, map_from_json, number, pending_from_row, trace_from_json},
    },
    ledger::{Backlog, Claim, ClaimedJob, LedgerError, PendingSummary, QueuedRef},
};

/// Steps from endpoint to endpoint through the index of unqueued deliveries.
const BACKLOG: &str = "
WITH RECURSIVE walk (endpoint_id) AS (
    SELECT min(endpoint_id) FROM pending_deliveries WHERE queued_epoch IS NULL AND endpoint_id > ?
    UNION ALL
    SELECT (SELECT min(p.endpoint_id) FROM pending_deliveries p WHERE p.queued_epoch IS NULL
        AND p.endpoint_id > walk.endpoint_id)
    FROM walk WHERE walk.endpoint_id IS NOT NULL
)
SELECT p.endpoint_id, p.project_id, p.due_at FROM walk JOIN pending_deliveries p ON p.id = (
    SELECT first.id FROM pending_deliveries first WHERE first.queued_epoch IS NULL
        AND first.endpoint_id = walk.endpoint_id
    ORDER BY first.due_at, first.id LIMIT 1
) LIMIT ?";

pub(super) const DUE: &str = "
SELECT p.*, e.content_type, e.headers, e.ordering_key, e.payload_size, e.origin,
    CASE WHEN e.payload_size <= ? THEN e.payload END AS payload
FROM pending_deliveries p LEFT JOIN events e ON e.id = p.event_id
WHERE p.endpoint_id = ? AND p.queued_epoch IS NULL AND p.due_at <= ?
    ORDER BY p.due_at, p.id LIMIT ?";

pub(super) static MARK: LazyLock<Chunked> = LazyLock::new(|| {
    Chunked::new(
        "UPDATE pending_deliveries SET queued_epoch = v.column2, generation = generation + 1, \
         check_at = v.column3 FROM (VALUES ",
        "(?, ?, ?)",
        ") AS v WHERE pending_deliveries.id = v.column1",
    )
});

// Here and below, the plus sign keeps SQLite from using the index of queued rows, all of which it
// would scan for each chunk. It looks the rows up by their ids instead.
pub(super) static UNQUEUE: LazyLock<Chunked> = LazyLock::new(|| {
    Chunked::new(
        "UPDATE pending_deliveries SET queued_epoch = NULL FROM (VALUES ",
        "(?, ?)",
        ") AS v WHERE pending_deliveries.id = v.column1 AND generation = v.column2 \
         AND +queued_epoch IS NOT NULL",
    )
});

pub(super) static EXTEND: LazyLock<Chunked> = LazyLock::new(|| {
    Chunked::new(
        "UPDATE pending_deliveries SET check_at = v.column3 FROM (VALUES ",
        "(?, ?, ?)",
        ") AS v WHERE pending_deliveries.id = v.column1 AND generation = v.column2 \
         AND +queued_epoch IS NOT NULL",
    )
});

/// The epochs in use are few (one per shard), so they are passed as a JSON list.
const UNQUEUE_OTHER_EPOCHS: &str = "UPDATE pending_deliveries SET queued_epoch = NULL
WHERE queued_epoch IS NOT NULL AND queued_epoch NOT IN (SELECT value FROM json_each(?))";

pub(super) const OVERDUE: &str =
    "SELECT id, endpoint_id, attempt, generation FROM pending_deliveries
WHERE queued_epoch IS NOT NULL AND check_at > ? AND check_at <= ? ORDER BY check_at LIMIT ?";

/// The same as on PostgreSQL.
const STANDING: &str = "
WITH RECURSIVE walk (endpoint_id) AS (
    SELECT min(endpoint_id) FROM pending_deliveries WHERE queued_epoch IS NULL
    UNION ALL
    SELECT (SELECT min(p.endpoint_id) FROM pending_deliveries p WHERE p.queued_epoch IS NULL
        AND p.endpoint_id > walk.endpoint_id)
    FROM walk WHERE walk.endpoint_id IS NOT NULL
), due (at) AS (
    SELECT (SELECT min(p.due_at) FROM pending_deliveries p WHERE p.queued_epoch IS NULL
        AND p.endpoint_id = walk.endpoint_id)
    FROM walk LEFT JOIN endpoints e ON e.id = walk.endpoint_id
        LEFT JOIN projects j ON j.id = e.project_id
    WHERE COALESCE(e.state, ?2) = ?2 AND e.deleted_at IS NULL AND j.deleted_at IS NULL
    UNION ALL
    SELECT min(due_at) FROM pending_deliveries WHERE queued_epoch IS NOT NULL
)
SELECT (SELECT count(*) FROM (SELECT 1 FROM pending_deliveries LIMIT ?3)) AS pending,
    (SELECT min(at) FROM due WHERE at <= ?1) AS oldest_due";

pub(super) static CURRENT: LazyLock<Chunked> = LazyLock::new(|| {
    Chunked::new(
        "SELECT id, attempt, generation FROM pending_deliveries \
         WHERE +queued_epoch IS NOT NULL AND id IN (",
        "?",
        ")",
    )
});

pub(super) static PAYLOADS: LazyLock<Chunked> = LazyLock::new(|| {
    Chunked::new(
        "SELECT id, payload FROM events WHERE payload_erased_at IS NULL AND id IN (",
        "?",
        ")",
    )
});

pub(super) async fn backlog(
    pool: &SqlitePool,
    after: Option<EndpointId>,
    limit: u32,
) -> Result<Vec<Backlog>, sqlx::Error> {
    let after = after.map_or(Uuid::nil(), |id| id.0);
    let rows = sqlx::query(BACKLOG).bind(after).bind(i64::from(limit)).fetch_all(pool).await?;
    let backlog = |row: &SqliteRow| {
        Ok(Backlog {
            endpoint: EndpointId(row.try_get("endpoint_id")?),
            project: ProjectId(row.try_get("project_id")?),
            earliest_due: Timestamp(row.try_get("due_at")?),
        })
    };
    rows.iter().map(backlog).collect()
}

pub(super) async fn claim(
    connection: &mut SqliteConnection,
    claims: Vec<Claim>,
    now: Timestamp,
    check_at: Timestamp,
    inline_bytes: u32,
) -> Result<Vec<ClaimedJob>, LedgerError> {
    let mut jobs: Vec<ClaimedJob> = Vec::new();
    let mut marks: HashMap<Uuid, i64> = HashMap::new();
    for claim in claims {
        let query = sqlx::query(DUE)
            .bind(number(inline_bytes))
            .bind(claim.endpoint.0)
            .bind(now.0)
            .bind(i64::from(claim.limit));
        for row in query.fetch_all(&mut *connection).await.map_err(failed)? {
            let id: Uuid = row.try_get("id").map_err(failed)?;
            // An endpoint that is claimed twice gets its rows once.
            if marks.insert(id, claim.epoch).is_some() {
                continue;
            }
            jobs.extend(claimed(&row, claim.epoch, check_at)?);
        }
    }
    let marks: Vec<(Uuid, i64)> = marks.into_iter().collect();
    MARK.execute(connection, &marks, |query, (id, epoch)| {
        query.bind(*id).bind(*epoch).bind(check_at.0)
    })
    .await
    .map_err(failed)?;
    jobs.sort_by_key(|job| (job.delivery.endpoint, job.delivery.due_at, job.delivery.id));
    Ok(jobs)
}

/// The job, as its row will be. None if the event is missing. Retention must not delete it while a
/// delivery of it is pending.
fn claimed(
    row: &SqliteRow,
    epoch: i64,
    check_at: Timestamp,
) -> Result<Option<ClaimedJob>, LedgerError> {
    let read = || -> Result<_, sqlx::Error> {
        let delivery = pending_from_row!(row);
        let content_type: Option<String> = row.try_get("content_type")?;
        let headers: Option<String> = row.try_get("headers")?;
        let payload_size: Option<i32> = row.try_get("payload_size")?;
        let payload: Option<Vec<u8>> = row.try_get("payload")?;
        let (ordering_key, origin): (_, Option<String>) =
            (row.try_get("ordering_key")?, row.try_get("origin")?);
        Ok((delivery, content_type.zip(headers).zip(payload_size), payload, ordering_key, origin))
    };
    let (mut delivery, event, payload, ordering_key, origin) = read().map_err(failed)?;
    let Some(((content_type, headers), payload_size)) = event else {
        tracing::error!(
            delivery = %delivery.id,
            event = %delivery.event,
            "the event of a pending delivery is missing"
        );
        return Ok(None);
    };
    delivery.queued_epoch = Some(epoch);
    delivery.generation += 1;
    delivery.check_at = check_at;
    Ok(Some(ClaimedJob {
        event_type: delivery.event_type.clone(),
        delivery,
        content_type,
        headers: map_from_json(&headers).map_err(|_| corrupt("events.headers"))?,
        ordering_key,
        payload_size: count(payload_size),
        payload: payload.map(Bytes::from),
        trace: origin.as_deref().and_then(trace_from_json),
    }))
}

pub(super) async fn unqueue(
    connection: &mut SqliteConnection,
    jobs: Vec<(DeliveryId, u32)>,
) -> Result<(), LedgerError> {
    let bind = |query: Bound, (id, generation): &(DeliveryId, u32)| {
        query.bind(id.0).bind(number(*generation))
    };
    UNQUEUE.execute(connection, &jobs, bind).await.map_err(failed)?;
    Ok(())
}

pub(super) async fn unqueue_other_epochs(
    connection: &mut SqliteConnection,
    current: Vec<i64>,
) -> Result<u64, LedgerError> {
    let current =
        serde_json::to_string(&current).map_err(|error| LedgerError::Data(error.to_string()))?;
    let done = sqlx::query(UNQUEUE_OTHER_EPOCHS)
        .bind(current)
        .execute(connection)
        .await
        .map_err(failed)?;
    Ok(done.rows_affected())
}

pub(super) async fn overdue(
    pool: &SqlitePool,
    after: Timestamp,
    until: Timestamp,
    limit: u32,
) -> Result<Vec<QueuedRef>, sqlx::Error> {
    let rows = sqlx::query(OVERDUE)
        .bind(after.0)
        .bind(until.0)
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await?;
    let queued = |row: &SqliteRow| {
        Ok(QueuedRef {
            delivery: DeliveryId(row.try_get("id")?),
            endpoint: EndpointId(row.try_get("endpoint_id")?),
            attempt: count(row.try_get("attempt")?),
            generation: count(row.try_get("generation")?),
        })
    };
    rows.iter().map(queued).collect()
}

pub(super) async fn pending_summary(
    pool: &SqlitePool,
    now: Timestamp,
    count_limit: u32,
) -> Result<PendingSummary, sqlx::Error> {
    let active = EndpointState::Active as i16;
    let row = sqlx::query(STANDING)
        .bind(now.0)
        .bind(active)
        .bind(i64::from(count_limit))
        .fetch_one(pool)
        .await?;
    let pending: i64 = row.try_get("pending")?;
    Ok(PendingSummary {
        pending: pending.unsigned_abs(),
        oldest_due: row.try_get::<Option<i64>, _>("oldest_due")?.map(Timestamp),
    })
}

pub(super) async fn extend(
    connection: &mut SqliteConnection,
    jobs: Vec<(DeliveryId, u32)>,
    check_at: Timestamp,
) -> Result<(), LedgerError> {
    let bind = |query: Bound, (id, generation): &(DeliveryId, u32)| {
        query.bind(id.0).bind(number(*generation)).bind(check_at.0)
    };
    EXTEND.execute(connection, &jobs, bind).await.map_err(failed)?;
    Ok(())
}

pub(super) async fn current(
    pool: &SqlitePool,
    jobs: &[(DeliveryId, u32, u32)],
) -> Result<Vec<bool>, sqlx::Error> {
    let ids: Vec<Uuid> = jobs.iter().map(|(id, ..)| id.0).collect();
    let rows = CURRENT.fetch(pool, &ids).await?;
    let mut named = HashMap::with_capacity(rows.len());
    for row in &rows {
        named.insert(
            DeliveryId(row.try_get("id")?),
            (count(row.try_get("attempt")?), count(row.try_get("generation")?)),
        );
    }
    Ok(jobs
        .iter()
        .map(|(id, attempt, generation)| named.get(id) == Some(&(*attempt, *generation)))
        .collect())
}

pub(super) async fn payloads(
    pool: &SqlitePool,
    events: &[EventId],
) -> Result<Vec<Option<Bytes>>, sqlx::Error> {
    let ids: Vec<Uuid> = events.iter().map(|id| id.0).collect();
    let rows = PAYLOADS.fetch(pool, &ids).await?;
    let mut found = HashMap::with_capacity(rows.len());
    for row in &rows {
        found.insert(
            row.try_get::<Uuid, _>("id")?,
            Bytes::from(row.try_get::<Vec<u8>, _>("payload")?),
        );
    }
    Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
}
