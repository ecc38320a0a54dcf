//! The statements of the feeder and the workers: what is due, what is queued, and the current row
//! of a job.

use std::collections::HashMap;

use bytes::Bytes;
use outrider_model::{DeliveryId, EndpointId, EndpointState, EventId, ProjectId, Timestamp};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use super::errors::failed;
use crate::{
    history::codec::{corrupt, count, map_from_json, number, pending_from_row, trace_from_json},
    ledger::{Backlog, Claim, ClaimedJob, LedgerError, PendingSummary, QueuedRef},
};

/// Steps from endpoint to endpoint through the index of unqueued deliveries.
const BACKLOG: &str = "
WITH RECURSIVE walk AS (
    (SELECT endpoint_id, project_id, due_at FROM pending_deliveries
     WHERE queued_epoch IS NULL AND endpoint_id > $1 ORDER BY endpoint_id, due_at, id LIMIT 1)
    UNION ALL
    SELECT n.endpoint_id, n.project_id, n.due_at FROM walk w CROSS JOIN LATERAL (
        SELECT p.endpoint_id, p.project_id, p.due_at FROM pending_deliveries p
        WHERE p.queued_epoch IS NULL AND p.endpoint_id > w.endpoint_id
            ORDER BY p.endpoint_id, p.due_at, p.id LIMIT 1
    ) n
)
SELECT endpoint_id, project_id, due_at FROM walk LIMIT $2";

/// Picks a few due rows of each endpoint. With the arrays, the update is one index descent per row:
/// for a limit that is a parameter, the planner expects a tenth of the table and would scan it.
/// OFFSET 0 keeps the look-up of events a descent into one partition.
const CLAIM: &str = "
WITH picked AS (
    SELECT d.id, c.epoch FROM UNNEST($1::uuid[], $2::int8[], $3::int8[])
        AS c (endpoint_id, wanted, epoch)
    CROSS JOIN LATERAL (
        SELECT p.id FROM pending_deliveries p
        WHERE p.endpoint_id = c.endpoint_id AND p.queued_epoch IS NULL AND p.due_at <= $4
        ORDER BY p.due_at, p.id LIMIT c.wanted FOR UPDATE SKIP LOCKED
    ) d
), marked AS (
    UPDATE pending_deliveries p SET queued_epoch = t.epoch, generation = p.generation + 1,
        check_at = $5
    FROM UNNEST(ARRAY(SELECT id FROM picked), ARRAY(SELECT epoch FROM picked)) AS t (id, epoch)
    WHERE p.id = t.id
    RETURNING p.*
)
SELECT m.*, e.content_type, e.headers, e.ordering_key, e.payload_size, e.payload, e.origin
    FROM marked m
LEFT JOIN LATERAL (
    SELECT v.content_type, v.headers, v.ordering_key, v.payload_size, v.origin,
        CASE WHEN v.payload_size <= $6 THEN v.payload END AS payload
    FROM events v WHERE v.id = m.event_id OFFSET 0
) e ON TRUE
ORDER BY m.endpoint_id, m.due_at, m.id";

/// Locks in the same order as `SETTLE`.
const UNQUEUE: &str = "
WITH locked AS (
    SELECT id FROM pending_deliveries WHERE id = ANY($1) AND queued_epoch IS NOT NULL
        ORDER BY id FOR UPDATE
)
UPDATE pending_deliveries p SET queued_epoch = NULL
FROM UNNEST($1::uuid[], $2::int4[]) AS j (id, generation)
WHERE (SELECT count(*) FROM locked) > 0 AND p.id = j.id AND j.generation = p.generation
    AND p.queued_epoch IS NOT NULL";

const UNQUEUE_OTHER_EPOCHS: &str = "
WITH locked AS (
    SELECT id FROM pending_deliveries WHERE queued_epoch IS NOT NULL AND queued_epoch <> ALL($1)
        ORDER BY id FOR UPDATE
)
UPDATE pending_deliveries p SET queued_epoch = NULL FROM locked l WHERE p.id = l.id
    AND p.queued_epoch <> ALL($1)";

pub(super) const OVERDUE: &str =
    "SELECT id, endpoint_id, attempt, generation FROM pending_deliveries
WHERE queued_epoch IS NOT NULL AND check_at > $1 AND check_at <= $2 ORDER BY check_at LIMIT $3";

const EXTEND: &str = "
WITH locked AS (
    SELECT id FROM pending_deliveries WHERE id = ANY($1) AND queued_epoch IS NOT NULL
        ORDER BY id FOR UPDATE
)
UPDATE pending_deliveries p SET check_at = $3
FROM UNNEST($1::uuid[], $2::int4[]) AS j (id, generation)
WHERE (SELECT count(*) FROM locked) > 0 AND p.id = j.id AND j.generation = p.generation
    AND p.queued_epoch IS NOT NULL";

const CURRENT: &str = "SELECT id, attempt, generation FROM pending_deliveries \
    WHERE id = ANY($1) AND queued_epoch IS NOT NULL";

/// Of the unqueued deliveries, the first of each endpoint is enough; the queued ones are few. An
/// endpoint without a row counts as active.
const STANDING: &str = "
WITH RECURSIVE walk AS (
    (SELECT endpoint_id, due_at FROM pending_deliveries
     WHERE queued_epoch IS NULL ORDER BY endpoint_id, due_at, id LIMIT 1)
    UNION ALL
    SELECT n.endpoint_id, n.due_at FROM walk w CROSS JOIN LATERAL (
        SELECT p.endpoint_id, p.due_at FROM pending_deliveries p
        WHERE p.queued_epoch IS NULL AND p.endpoint_id > w.endpoint_id
            ORDER BY p.endpoint_id, p.due_at, p.id LIMIT 1
    ) n
)
SELECT (SELECT count(*) FROM (SELECT 1 FROM pending_deliveries LIMIT $2) counted) AS pending,
    LEAST(
        (SELECT min(w.due_at) FROM walk w LEFT JOIN endpoints e ON e.id = w.endpoint_id
            LEFT JOIN projects p ON p.id = e.project_id
         WHERE w.due_at <= $1 AND COALESCE(e.state, $3) = $3 AND e.deleted_at IS NULL
             AND p.deleted_at IS NULL),
        (SELECT min(due_at) FROM pending_deliveries WHERE queued_epoch IS NOT NULL AND due_at <= $1)
    ) AS oldest_due";

/// The bounds let PostgreSQL skip the partitions of other days.
const PAYLOADS: &str = "SELECT id, payload FROM events \
    WHERE id = ANY($1) AND id BETWEEN $2 AND $3 AND payload_erased_at IS NULL";

pub(super) async fn backlog(
    connection: &mut PgConnection,
    after: Option<EndpointId>,
    limit: u32,
) -> Result<Vec<Backlog>, sqlx::Error> {
    let after = after.map_or(Uuid::nil(), |id| id.0);
    let rows =
        sqlx::query(BACKLOG).bind(after).bind(i64::from(limit)).fetch_all(connection).await?;
    let backlog = |row: &PgRow| {
        Ok(Backlog {
            endpoint: EndpointId(row.try_get("endpoint_id")?),
            project: ProjectId(row.try_get("project_id")?),
            earliest_due: Timestamp(row.try_get("due_at")?),
        })
    };
    rows.iter().map(backlog).collect()
}

pub(super) async fn claim(
    connection: &mut PgConnection,
    claims: &[Claim],
    now: Timestamp,
    check_at: Timestamp,
    inline_bytes: u32,
) -> Result<Vec<ClaimedJob>, LedgerError> {
    let rows = sqlx::query(CLAIM)
        .bind(claims.iter().map(|claim| claim.endpoint.0).collect::<Vec<_>>())
        .bind(claims.iter().map(|claim| i64::from(claim.limit)).collect::<Vec<_>>())
        .bind(claims.iter().map(|claim| claim.epoch).collect::<Vec<_>>())
        .bind(now.0)
        .bind(check_at.0)
        .bind(number(inline_bytes))
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    let mut jobs = Vec::with_capacity(rows.len());
    for row in &rows {
        if let Some(job) = claimed(row).map_err(failed)? {
            jobs.push(job?);
        }
    }
    Ok(jobs)
}

/// None if the event is missing. Retention must not delete it while a delivery of it is pending.
fn claimed(row: &PgRow) -> Result<Option<Result<ClaimedJob, LedgerError>>, sqlx::Error> {
    let delivery = pending_from_row!(row);
    let Some(content_type) = row.try_get("content_type")? else {
        tracing::error!(
            delivery = %delivery.id,
            event = %delivery.event,
            "the event of a pending delivery is missing"
        );
        return Ok(None);
    };
    let payload: Option<Vec<u8>> = row.try_get("payload")?;
    let payload_size = count(row.try_get("payload_size")?);
    let trace = trace_from_json(row.try_get("origin")?);
    let ordering_key = row.try_get("ordering_key")?;
    let headers = map_from_json(row.try_get("headers")?).map_err(|_| corrupt("events.headers"));
    Ok(Some(headers.map(|headers| ClaimedJob {
        event_type: delivery.event_type.clone(),
        delivery,
        content_type,
        headers,
        ordering_key,
        payload_size,
        payload: payload.map(Bytes::from),
        trace,
    })))
}

fn ids_and_generations(jobs: &[(DeliveryId, u32)]) -> (Vec<Uuid>, Vec<i32>) {
    jobs.iter().map(|(id, generation)| (id.0, number(*generation))).unzip()
}

pub(super) async fn unqueue(
    connection: &mut PgConnection,
    jobs: &[(DeliveryId, u32)],
) -> Result<(), sqlx::Error> {
    let (ids, generations) = ids_and_generations(jobs);
    sqlx::query(UNQUEUE).bind(ids).bind(generations).execute(connection).await?;
    Ok(())
}

pub(super) async fn unqueue_other_epochs(
    connection: &mut PgConnection,
    current: &[i64],
) -> Result<u64, sqlx::Error> {
    Ok(sqlx::query(UNQUEUE_OTHER_EPOCHS).bind(current).execute(connection).await?.rows_affected())
}

pub(super) async fn overdue(
    connection: &mut PgConnection,
    after: Timestamp,
    until: Timestamp,
    limit: u32,
) -> Result<Vec<QueuedRef>, sqlx::Error> {
    let rows = sqlx::query(OVERDUE)
        .bind(after.0)
        .bind(until.0)
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await?;
    let queued = |row: &PgRow| {
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
    connection: &mut PgConnection,
    now: Timestamp,
    count_limit: u32,
) -> Result<PendingSummary, sqlx::Error> {
    let active = EndpointState::Active as i16;
    let row = sqlx::query(STANDING)
        .bind(now.0)
        .bind(i64::from(count_limit))
        .bind(active)
        .fetch_one(connection)
        .await?;
    let pending: i64 = row.try_get("pending")?;
    Ok(PendingSummary {
        pending: pending.unsigned_abs(),
        oldest_due: row.try_get::<Option<i64>, _>("oldest_due")?.map(Timestamp),
    })
}

pub(super) async fn extend(
    connection: &mut PgConnection,
    jobs: &[(DeliveryId, u32)],
    check_at: Timestamp,
) -> Result<(), sqlx::Error> {
    let (ids, generations) = ids_and_generations(jobs);
    sqlx::query(EXTEND).bind(ids).bind(generations).bind(check_at.0).execute(connection).await?;
    Ok(())
}

pub(super) async fn current(
    connection: &mut PgConnection,
    jobs: &[(DeliveryId, u32, u32)],
) -> Result<Vec<bool>, sqlx::Error> {
    let ids: Vec<Uuid> = jobs.iter().map(|(id, ..)| id.0).collect();
    let rows = sqlx::query(CURRENT).bind(ids).fetch_all(connection).await?;
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
    connection: &mut PgConnection,
    events: &[EventId],
) -> Result<Vec<Option<Bytes>>, sqlx::Error> {
    let ids: Vec<Uuid> = events.iter().map(|id| id.0).collect();
    let (first, last) = (ids.iter().min().copied(), ids.iter().max().copied());
    let rows =
        sqlx::query(PAYLOADS).bind(&ids).bind(first).bind(last).fetch_all(connection).await?;
    let mut found = HashMap::with_capacity(rows.len());
    for row in &rows {
        found.insert(
            row.try_get::<Uuid, _>("id")?,
            Bytes::from(row.try_get::<Vec<u8>, _>("payload")?),
        );
    }
    Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
}
