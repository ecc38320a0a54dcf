//! The commit log on PostgreSQL, partitioned by day.

use outrider_migrations::partitions;
use outrider_model::{ProjectId, Timestamp};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, Row as _};

use super::{
    entries::{LogKind, LogPosition},
    rows::{KEPT_BEYOND, ROWS, Read, Row, read_from_rows},
};
use crate::{connection::partitions::may_create, days::day_of};

/// A part of a statement that writes rows of the log: rows of this kind about the rows of `$moved`,
/// which have a `project_id`, with an entry for each in the order of `m.id`. All statements of a
/// transaction add to the same row.
macro_rules! logged {
    ($kind:literal, $moved:literal, $entry:literal) => {
        concat!(
            "logged AS (
    INSERT INTO commit_log (kind, project_id, position, day, created_at, entries)
    SELECT ",
            $kind,
            ", m.project_id, pg_current_xact_id()::text::int8,
        (n.micros / 86400000000)::int4, n.micros,
        string_agg(",
            $entry,
            ", ''::bytea ORDER BY m.id)
    FROM ",
            $moved,
            " m CROSS JOIN (SELECT (EXTRACT(EPOCH FROM now()) * 1000000)::int8 AS micros) n
    GROUP BY m.project_id, n.micros
    ON CONFLICT (kind, project_id, position, day)
        DO UPDATE SET entries = commit_log.entries || excluded.entries
)"
        )
    };
}
pub(crate) use logged;

/// Combines both, because another server gives other ids to transactions, and another database of
/// the same server has other rows.
const IDENTITY: &str = "SELECT s.identity # c.system_identifier \
    FROM commit_log_state s CROSS JOIN pg_control_system() c";

/// All transactions below this have ended.
const END: &str = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::int8";

const READ: &str = "
WITH horizon AS (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::int8 AS position)
SELECT h.position AS horizon, s.kept_from, l.position, l.created_at, l.entries
FROM horizon h CROSS JOIN commit_log_state s
LEFT JOIN LATERAL (
    SELECT c.position, c.created_at, c.entries FROM commit_log c
    WHERE c.kind = $1 AND c.project_id = $2 AND c.position >= $3 AND c.position < h.position
        AND c.day BETWEEN $4 AND $5
    ORDER BY c.position LIMIT $6
) l ON TRUE
ORDER BY l.position";

const SINCE: &str = "
WITH horizon AS (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::int8 AS position)
SELECT h.position AS horizon, l.kind, l.project_id FROM horizon h
LEFT JOIN LATERAL (
    SELECT k.kind, k.project_id FROM UNNEST($1::int2[], $2::uuid[]) AS k (kind, project_id)
    WHERE EXISTS (
        SELECT 1 FROM commit_log c
        WHERE c.kind = k.kind AND c.project_id = k.project_id AND c.position >= $3
            AND c.position < h.position
            AND c.day BETWEEN $4 AND $5
    )
) l ON TRUE";

/// Only moves forward: for a while, processes may have different settings.
const KEEP_FROM: &str = "UPDATE commit_log_state SET kept_from = $1 WHERE kept_from < $1";

const PARTITIONS: &str = "SELECT c.relname::text \
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
    WHERE i.inhparent = 'commit_log'::regclass AND c.relname < $1 ORDER BY c.relname LIMIT 1";

/// Dropping a partition locks the whole table. If the lock is not free soon, a later step tries
/// again.
const PATIENCE: &str = "SET LOCAL lock_timeout = '500ms'";

pub(super) async fn identity(pool: &PgPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(IDENTITY).fetch_one(pool).await
}

pub(super) async fn end(pool: &PgPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(END).fetch_one(pool).await
}

/// The days that may contain rows from a time on. The time of a row is that at which its
/// transaction began.
fn days(from: Timestamp, now: Timestamp) -> (i32, i32) {
    (day_of(from.minus(KEPT_BEYOND)), day_of(now) + 1)
}

pub(super) async fn read(
    pool: &PgPool,
    kind: LogKind,
    project: ProjectId,
    from: LogPosition,
    now: Timestamp,
) -> Result<Read, sqlx::Error> {
    let (first_day, last_day) = days(from.at, now);
    let found = sqlx::query(READ)
        .bind(kind as i16)
        .bind(project.0)
        .bind(from.position)
        .bind(first_day)
        .bind(last_day)
        .bind(i64::from(ROWS))
        .fetch_all(pool)
        .await?;
    read_from_rows!(found)
}

pub(super) async fn since(
    pool: &PgPool,
    from: i64,
    logs: &[(LogKind, ProjectId)],
    now: Timestamp,
) -> Result<(Vec<(LogKind, ProjectId)>, i64), sqlx::Error> {
    let kinds: Vec<i16> = logs.iter().map(|(kind, _)| *kind as i16).collect();
    let projects: Vec<uuid::Uuid> = logs.iter().map(|(_, project)| project.0).collect();
    let (first_day, last_day) = days(now, now);
    let query =
        sqlx::query(SINCE).bind(kinds).bind(projects).bind(from).bind(first_day).bind(last_day);
    let rows = query.fetch_all(pool).await?;
    let end = rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get("horizon")?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let (kind, project): (Option<i16>, Option<uuid::Uuid>) =
            (row.try_get("kind")?, row.try_get("project_id")?);
        found.extend(kind.and_then(LogKind::from_number).zip(project.map(ProjectId)));
    }
    Ok((found, end))
}

/// Drops the oldest partition if all its rows are older than `kept_from`. A role that does not own
/// the table writes down `kept_from` and leaves the rest to the owner.
pub(crate) async fn prune(
    connection: &mut PgConnection,
    kept_from: Timestamp,
) -> Result<bool, sqlx::Error> {
    let first_kept = day_of(kept_from.minus(KEPT_BEYOND));
    let bound = partitions::of_day(&[partitions::COMMIT_LOG], first_kept.into()).remove(0).name;
    let oldest: Option<String> =
        sqlx::query_scalar(PARTITIONS).bind(&bound).fetch_optional(&mut *connection).await?;
    let Some(oldest) = oldest else { return Ok(false) };
    sqlx::query(KEEP_FROM).bind(kept_from.0).execute(&mut *connection).await?;
    if !may_create(connection).await? {
        return Ok(false);
    }
    let mut transaction = connection.begin().await?;
    sqlx::query(PATIENCE).execute(&mut *transaction).await?;
    // The name comes from this code. IF EXISTS, because another process may have been faster.
    let drop = AssertSqlSafe(format!("DROP TABLE IF EXISTS {oldest}"));
    sqlx::raw_sql(drop).execute(&mut *transaction).await?;
    transaction.commit().await?;
    tracing::info!(partition = oldest, "dropped a partition of the commit log");
    Ok(true)
}
