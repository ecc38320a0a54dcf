//! The commit log on SQLite, whose one writer numbers the rows.

use std::{
    collections::{BTreeMap, HashSet},
    sync::LazyLock,
};

use outrider_model::{AttemptId, DeliveryId, EventId, ProjectId, Timestamp};
use sqlx::{Row as _, SqliteConnection, SqlitePool};
use uuid::Uuid;

use super::{
    entries::{LogKind, LogPosition},
    rows::{KEPT_BEYOND, ROWS, Read, Row, read_from_rows},
};
use crate::history::chunked::{Bound, Chunked};

static INSERT: LazyLock<Chunked> = LazyLock::new(|| {
    Chunked::new(
        "INSERT INTO commit_log (kind, project_id, created_at, entries) VALUES ",
        "(?, ?, ?, ?)",
        "",
    )
});

const IDENTITY: &str = "SELECT identity FROM commit_log_state";

/// A number is never used twice, even after all rows were pruned.
const END: &str =
    "SELECT COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'commit_log'), 0) + 1";

/// One statement is one snapshot, so the end and the rows agree.
const READ: &str = "
SELECT h.position AS horizon, s.kept_from, l.position, l.created_at, l.entries
FROM (
    SELECT COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'commit_log'), 0) + 1 AS position
) h CROSS JOIN commit_log_state s
LEFT JOIN (
    SELECT position, created_at, entries FROM commit_log
    WHERE kind = ?1 AND project_id = ?2 AND position >= ?3 ORDER BY position LIMIT ?4
) l ON TRUE
ORDER BY l.position";

const SINCE: &str =
    "SELECT DISTINCT kind, project_id FROM commit_log WHERE position BETWEEN ?1 AND ?2";

const KEEP_FROM: &str = "UPDATE commit_log_state SET kept_from = ?1 WHERE kept_from < ?1";

/// Examines only this many of the oldest rows.
const PRUNE: &str = "
DELETE FROM commit_log WHERE position IN (
    SELECT position FROM (SELECT position, created_at FROM commit_log ORDER BY position LIMIT ?2)
        WHERE created_at < ?1
)";

/// Number of rows examined in one step of pruning.
const PRUNED_AT_ONCE: u32 = 1_000;

/// The entries of a commit, by project.
pub(crate) struct Entries {
    kind: LogKind,
    projects: BTreeMap<ProjectId, Vec<u8>>,
}

impl Entries {
    /// Entries for accepted events.
    pub fn events(events: impl IntoIterator<Item = (ProjectId, EventId)>) -> Self {
        let mut projects: BTreeMap<ProjectId, Vec<u8>> = BTreeMap::new();
        for (project, event) in events {
            projects.entry(project).or_default().extend_from_slice(event.as_bytes());
        }
        Self { kind: LogKind::Events, projects }
    }

    /// Entries for moved deliveries.
    pub fn deliveries(
        moved: impl IntoIterator<Item = (ProjectId, DeliveryId, Option<AttemptId>)>,
    ) -> Self {
        let mut projects: BTreeMap<ProjectId, Vec<u8>> = BTreeMap::new();
        for (project, delivery, attempt) in moved {
            let entries = projects.entry(project).or_default();
            entries.extend_from_slice(delivery.as_bytes());
            entries.extend_from_slice(attempt.map_or(Uuid::nil(), |attempt| attempt.0).as_bytes());
        }
        Self { kind: LogKind::Deliveries, projects }
    }
}

/// Adds a row for each project, in the transaction of the connection.
pub(crate) async fn write(
    connection: &mut SqliteConnection,
    entries: Entries,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let kind = entries.kind as i16;
    let rows: Vec<(ProjectId, Vec<u8>)> = entries.projects.into_iter().collect();
    let bind = |query: Bound, (project, entries): &(ProjectId, Vec<u8>)| {
        query.bind(kind).bind(project.0).bind(now.0).bind(entries.clone())
    };
    INSERT.execute(connection, &rows, bind).await?;
    Ok(())
}

pub(super) async fn identity(pool: &SqlitePool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(IDENTITY).fetch_one(pool).await
}

pub(super) async fn end(pool: &SqlitePool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(END).fetch_one(pool).await
}

pub(super) async fn read(
    pool: &SqlitePool,
    kind: LogKind,
    project: ProjectId,
    from: LogPosition,
) -> Result<Read, sqlx::Error> {
    let query = sqlx::query(READ)
        .bind(kind as i16)
        .bind(project.0)
        .bind(from.position)
        .bind(i64::from(ROWS));
    let found = query.fetch_all(pool).await?;
    read_from_rows!(found)
}

pub(super) async fn since(
    pool: &SqlitePool,
    from: i64,
    logs: &[(LogKind, ProjectId)],
) -> Result<(Vec<(LogKind, ProjectId)>, i64), sqlx::Error> {
    let end = end(pool).await?;
    if end <= from {
        return Ok((Vec::new(), from));
    }
    let wanted: HashSet<&(LogKind, ProjectId)> = logs.iter().collect();
    let rows = sqlx::query(SINCE).bind(from).bind(end - 1).fetch_all(pool).await?;
    let mut found = Vec::new();
    for row in &rows {
        let log = LogKind::from_number(row.try_get("kind")?)
            .zip(Some(ProjectId(row.try_get("project_id")?)));
        found.extend(log.filter(|log| wanted.contains(log)));
    }
    Ok((found, end))
}

/// Deletes some of the oldest rows if they are older than `kept_from`. Returns whether there may be
/// more.
pub(crate) async fn prune(
    connection: &mut SqliteConnection,
    kept_from: Timestamp,
) -> Result<bool, sqlx::Error> {
    let query = sqlx::query(PRUNE).bind(kept_from.minus(KEPT_BEYOND).0).bind(PRUNED_AT_ONCE);
    let deleted = query.execute(&mut *connection).await?.rows_affected();
    if deleted > 0 {
        sqlx::query(KEEP_FROM).bind(kept_from.0).execute(connection).await?;
    }
    Ok(deleted == u64::from(PRUNED_AT_ONCE))
}
