//! Whether a pending delivery holds a day.

use outrider_model::Result;
use sea_orm::{ConnectionTrait, DbErr, Statement};

use crate::{connection::error::unavailable, days::id_range};

/// Returns a row if a delivery of a day is pending.
pub(super) const PENDING: &str =
    "SELECT 1 WHERE EXISTS (SELECT 1 FROM pending_deliveries WHERE id >= $1 AND id < $2)";
/// Returns a row if a replay of an event of a day is pending.
const REPLAYED: &str = "SELECT 1 WHERE EXISTS (
    SELECT 1 FROM replays r JOIN pending_deliveries p ON p.id = r.delivery_id
    WHERE r.event_id >= $1 AND r.event_id < $2
)";

/// Whether a pending delivery refers to a day.
pub(super) async fn is_held(database: &impl ConnectionTrait, day: i32) -> Result<bool> {
    let is_held =
        async { Ok(finds(database, PENDING, day).await? || finds(database, REPLAYED, day).await?) };
    is_held.await.map_err(unavailable)
}

/// Whether a statement over the ids of a day returns a row.
pub(super) async fn finds(
    database: &impl ConnectionTrait,
    statement: &str,
    day: i32,
) -> std::result::Result<bool, DbErr> {
    let (from, until) = id_range(day);
    let statement = Statement::from_sql_and_values(
        database.get_database_backend(),
        statement,
        [from.into(), until.into()],
    );
    Ok(database.query_one_raw(statement).await?.is_some())
}
