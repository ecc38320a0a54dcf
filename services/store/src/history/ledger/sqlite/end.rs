//! Ends pending deliveries: deletes them there and writes them to the history.

use std::sync::LazyLock;

use outrider_model::{DeliveryReason, DeliveryStatus, PendingDelivery, Timestamp};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::errors::failed;
use crate::{
    history::{
        chunked::{Bound, Chunked},
        codec::{number, pending_from_row, subscriptions_to_bytes},
        commit_log,
    },
    ledger::{CancelScope, LedgerError},
};

pub(super) static DELETE_PENDING: LazyLock<Chunked> =
    LazyLock::new(|| Chunked::new("DELETE FROM pending_deliveries WHERE id IN (", "?", ")"));

static INSERT_ENDED: LazyLock<Chunked> = LazyLock::new(|| {
    Chunked::new(
        "INSERT OR IGNORE INTO deliveries (id, project_id, event_id, event_type, endpoint_id, \
         subscription_ids, replay_number, status, reason, attempt_count, last_status_code,
             created_at, finished_at) VALUES ",
        "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        "",
    )
});

// These check again that the endpoint or project was deleted: the caller knows it from a cache.
pub(super) const OF_ENDPOINT: &str = "SELECT * FROM pending_deliveries \
     WHERE endpoint_id = ?1 AND queued_epoch IS NULL \
     AND NOT EXISTS (SELECT 1 FROM endpoints o WHERE o.id = ?1 AND o.deleted_at IS NULL) \
     ORDER BY id LIMIT ?2";
pub(super) const OF_PROJECT: &str = "SELECT * FROM pending_deliveries \
     WHERE project_id = ?1 AND queued_epoch IS NULL \
     AND NOT EXISTS (SELECT 1 FROM projects o WHERE o.id = ?1 AND o.deleted_at IS NULL) \
     ORDER BY id LIMIT ?2";

/// A pending delivery as it is stored.
#[derive(Debug, Clone)]
pub(super) struct PendingRow {
    pub delivery: PendingDelivery,
    pub last_status_code: Option<i32>,
}

impl PendingRow {
    pub fn read(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            delivery: pending_from_row!(row),
            last_status_code: row.try_get("last_status_code")?,
        })
    }
}

/// A delivery that is ending.
pub(super) struct Ended {
    pub row: PendingRow,
    pub status: DeliveryStatus,
    pub reason: DeliveryReason,
    pub attempt_count: u32,
    pub at: Timestamp,
}

/// Moves deliveries to the history.
pub(super) async fn end(
    connection: &mut SqliteConnection,
    ended: &[Ended],
) -> Result<(), sqlx::Error> {
    DELETE_PENDING
        .execute(connection, ended, |query, ended| query.bind(ended.row.delivery.id.0))
        .await?;
    INSERT_ENDED.execute(connection, ended, bind_ended).await?;
    Ok(())
}

pub(super) async fn cancel(
    connection: &mut SqliteConnection,
    scope: CancelScope,
    reason: DeliveryReason,
    now: Timestamp,
    limit: u32,
) -> Result<u64, LedgerError> {
    let (statement, id) = match scope {
        CancelScope::Endpoint(id) => (OF_ENDPOINT, id.0),
        CancelScope::Project(id) => (OF_PROJECT, id.0),
    };
    let rows = sqlx::query(statement)
        .bind(id)
        .bind(i64::from(limit))
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?;
    let mut ended = Vec::with_capacity(rows.len());
    for row in &rows {
        let row = PendingRow::read(row).map_err(failed)?;
        let attempt_count = row.delivery.attempt.saturating_sub(1);
        ended.push(Ended {
            row,
            status: DeliveryStatus::Cancelled,
            reason,
            attempt_count,
            at: now,
        });
    }
    end(connection, &ended).await.map_err(failed)?;
    let moved = ended.iter().map(|ended| (ended.row.delivery.project, ended.row.delivery.id, None));
    commit_log::write(connection, commit_log::Entries::deliveries(moved), now)
        .await
        .map_err(failed)?;
    Ok(ended.len() as u64)
}

fn bind_ended(query: Bound, ended: &Ended) -> Bound {
    let row = &ended.row.delivery;
    query
        .bind(row.id.0)
        .bind(row.project.0)
        .bind(row.event.0)
        .bind(row.event_type.clone())
        .bind(row.endpoint.0)
        .bind(subscriptions_to_bytes(&row.subscriptions))
        .bind(number(row.replay_number))
        .bind(ended.status as i16)
        .bind(ended.reason as i16)
        .bind(number(ended.attempt_count))
        .bind(ended.row.last_status_code)
        .bind(row.created_at.0)
        .bind(ended.at.0)
}
