//! Ends pending deliveries without an attempt. The statement checks again that their endpoint or
//! project was deleted, because the caller knows that from a cache, and a canceled delivery does
//! not come back.

use outrider_model::{DeliveryReason, DeliveryStatus, Timestamp};
use sqlx::PgConnection;

use crate::{history::commit_log::logged, ledger::CancelScope};

macro_rules! cancel_statement {
    ($column:literal, $owners:literal) => {
        concat!(
            "WITH picked AS (
                SELECT id FROM pending_deliveries WHERE ",
            $column,
            " = $1 AND queued_epoch IS NULL
                    AND NOT EXISTS (SELECT 1 FROM ",
            $owners,
            " o WHERE o.id = $1 AND o.deleted_at IS NULL)
                ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED
            ), ended AS (
                DELETE FROM pending_deliveries p USING picked WHERE p.id = picked.id
                    AND p.queued_epoch IS NULL RETURNING p.*
            ), history AS (
                INSERT INTO deliveries (id, project_id, event_id, event_type, endpoint_id,
                    subscription_ids, replay_number, status, reason, attempt_count,
                    last_status_code, created_at, finished_at)
                SELECT id, project_id, event_id, event_type, endpoint_id, subscription_ids,
                    replay_number, $3, $4, attempt - 1, last_status_code, created_at, $5 FROM ended
                ON CONFLICT (id) DO NOTHING
            ), ",
            logged!(
                "2",
                "ended",
                "uuid_send(m.id) || uuid_send('00000000-0000-0000-0000-000000000000'::uuid)"
            ),
            "
            SELECT count(*) FROM ended"
        )
    };
}

pub(super) async fn cancel(
    connection: &mut PgConnection,
    scope: CancelScope,
    reason: DeliveryReason,
    now: Timestamp,
    limit: u32,
) -> Result<u64, sqlx::Error> {
    let (statement, id) = match scope {
        CancelScope::Endpoint(id) => (cancel_statement!("endpoint_id", "endpoints"), id.0),
        CancelScope::Project(id) => (cancel_statement!("project_id", "projects"), id.0),
    };
    let ended: i64 = sqlx::query_scalar(statement)
        .bind(id)
        .bind(i64::from(limit))
        .bind(DeliveryStatus::Cancelled as i16)
        .bind(reason as i16)
        .bind(now.0)
        .fetch_one(connection)
        .await?;
    Ok(ended.unsigned_abs())
}
