//! The statements of the audit, with the same text for both backends.

use outrider_model::{EndpointState, ProjectId, Result};
use sea_orm::{ConnectionTrait, DatabaseTransaction, QueryResult, Statement, Value};
use uuid::Uuid;

use super::{
    findings::{Discrepancy, Finding},
    scope::AuditScope,
};
use crate::connection::error::{malformed_row, unavailable};

/// Stand in the column of the reason for pending deliveries.
pub const QUEUED: i64 = 1;
const WAITING: i64 = 2;
pub const HELD: i64 = 3;

/// What a row of the tallies counts. The numbers are those in the statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tally {
    Events = 1,
    Unrouted = 2,
    Owed = 3,
    Replays = 4,
    Deliveries = 5,
    Findings = 6,
}

impl Tally {
    pub fn from_number(number: i64) -> Option<Self> {
        [Self::Events, Self::Unrouted, Self::Owed, Self::Replays, Self::Deliveries, Self::Findings]
            .into_iter()
            .find(|tally| *tally as i64 == number)
    }
}

/// The rows of a range [$1, $2), and the discrepancies among them. `{of}` is empty or a condition
/// on the project.
///
/// - Retention drops a day's events together with their deliveries and replay numbers. The delivery
///   of a replay may outlive its event, but not its replay number.
/// - Deliveries of an event are counted by endpoint: each endpoint has one.
/// - Attempts: each number up to the last that counts has at least one row, because the commit that
///   counts it writes it. Further rows may follow for attempts that were in progress when a late
///   success of an earlier one ended the delivery. A delivered delivery has a successful attempt,
///   which the commit that ended it wrote.
/// - A look-up outside of the range is a subquery for each row. Only replays need it. A join would
///   read all history.
const FINDINGS: &str = "
WITH d AS (
    SELECT id, project_id, event_id, endpoint_id, replay_number, 1 AS status,
        CASE WHEN queued_epoch IS NULL THEN 2 ELSE 1 END AS reason, attempt - 1 AS made
    FROM pending_deliveries WHERE id >= $1 AND id < $2{of}
    UNION ALL
    SELECT id, project_id, event_id, endpoint_id, replay_number, status, reason, attempt_count
    FROM deliveries WHERE id >= $1 AND id < $2{of}
), e AS (
    SELECT id, project_id, delivery_count FROM events WHERE id >= $1 AND id < $2{of}
), found AS (
    SELECT event_id, count(*) AS found, count(DISTINCT endpoint_id) AS endpoints
    FROM d WHERE replay_number = 0 GROUP BY event_id
), owed AS (
    SELECT e.id, e.project_id, e.delivery_count, COALESCE(f.found, 0) AS found,
        CASE WHEN COALESCE(f.endpoints, 0) < e.delivery_count
            THEN COALESCE(f.endpoints, 0) ELSE e.delivery_count END AS settled
    FROM e LEFT JOIN found f ON f.event_id = e.id
), a AS (
    SELECT delivery_id, project_id, number, 
        max(CASE WHEN outcome = 1 THEN 1 ELSE 0 END) AS succeeded
    FROM attempts WHERE id >= $1 AND id < $2{of} GROUP BY delivery_id, project_id, number
), made AS (
    SELECT d.id, d.project_id, d.status, d.made,
        count(CASE WHEN a.number <= d.made THEN 1 END) AS known,
        COALESCE(max(a.succeeded), 0) AS succeeded
    FROM d LEFT JOIN a ON a.delivery_id = d.id GROUP BY d.id, d.project_id, d.status, d.made
), replayed AS (
    SELECT id, project_id, event_id, status,
        (SELECT count(*) FROM events v WHERE v.id = d.event_id
            AND v.project_id = d.project_id) AS events,
        (SELECT count(*) FROM replays r WHERE r.event_id = d.event_id
            AND r.endpoint_id = d.endpoint_id AND r.replay_number = d.replay_number
            AND r.delivery_id = d.id) AS orders
    FROM d WHERE replay_number > 0
), ordered AS (
    SELECT r.event_id, r.project_id,
        (SELECT count(*) FROM pending_deliveries p WHERE p.id = r.delivery_id)
        + (SELECT count(*) FROM deliveries h WHERE h.id = r.delivery_id) AS found
    FROM replays r WHERE r.event_id >= $1 AND r.event_id < $2{of}
), findings AS (
    SELECT project_id, 1 AS kind, id, delivery_count - settled AS n
    FROM owed WHERE settled < delivery_count
    UNION ALL
    SELECT project_id, 2, id, found - settled FROM owed WHERE found > settled
    UNION ALL
    SELECT project_id, 3, id, count(*) - 1 FROM replayed GROUP BY project_id, id HAVING count(*) > 1
    UNION ALL
    SELECT d.project_id, 4, d.id, 1
    FROM d LEFT JOIN e ON e.id = d.event_id AND e.project_id = d.project_id
    WHERE d.replay_number = 0 AND e.id IS NULL
    UNION ALL
    SELECT project_id, 4, id, 1 FROM replayed WHERE events = 0 AND (status = 1 OR orders > 0)
    UNION ALL
    SELECT project_id, 5, id, CASE WHEN known < made THEN made - known ELSE 1 END FROM made
    WHERE known < made OR (status = 2 AND succeeded = 0)
    UNION ALL
    SELECT a.project_id, 6, a.delivery_id, count(*) FROM a LEFT JOIN d ON d.id = a.delivery_id
    WHERE d.id IS NULL GROUP BY a.project_id, a.delivery_id
    UNION ALL
    SELECT project_id, 7, event_id, count(*)
    FROM ordered WHERE found = 0 GROUP BY project_id, event_id
    UNION ALL
    SELECT project_id, 8, id, 1 FROM replayed WHERE orders = 0 AND events > 0
)";

const TALLIES: &str = "
, placed AS (
    SELECT project_id, status, CASE WHEN status = 1 AND reason = {waiting} AND (
        SELECT count(*) FROM endpoints p
        WHERE p.id = d.endpoint_id AND p.state = {paused} AND p.deleted_at IS NULL
    ) > 0 THEN {held} ELSE reason END AS reason
    FROM d
), tallies AS (
    SELECT project_id, 1 AS tally, 0 AS a, 0 AS b, count(*) AS n FROM e GROUP BY project_id
    UNION ALL
    SELECT project_id, 2, 0, 0, count(*) FROM e WHERE delivery_count = 0 GROUP BY project_id
    UNION ALL
    SELECT project_id, 3, 0, 0, sum(delivery_count) FROM e GROUP BY project_id
    UNION ALL
    SELECT project_id, 4, 0, 0, count(*) FROM replayed GROUP BY project_id
    UNION ALL
    SELECT project_id, 5, status, reason, count(*) FROM placed GROUP BY project_id, status, reason
    UNION ALL
    SELECT project_id, 6, kind, 0, CAST(sum(n) AS BIGINT) FROM findings GROUP BY project_id, kind
)
SELECT project_id, CAST(tally AS BIGINT) AS tally, CAST(a AS BIGINT) AS a, CAST(b AS BIGINT) AS b,
    CAST(n AS BIGINT) AS n
FROM tallies ORDER BY tally";

const LIST: &str = "
SELECT project_id, CAST(kind AS BIGINT) AS kind, id, CAST(n AS BIGINT) AS n FROM findings
    ORDER BY id, kind LIMIT {limit}";

/// The nth row of each table, if it has that many.
const NTH: &str = "
SELECT id FROM (SELECT id FROM events WHERE id >= $1 AND id < $2{of}
    ORDER BY id LIMIT 1 OFFSET {n}) AS e
UNION ALL
SELECT id FROM (SELECT id FROM pending_deliveries WHERE id >= $1 AND id < $2{of}
    ORDER BY id LIMIT 1 OFFSET {n}) AS p
UNION ALL
SELECT id FROM (SELECT id FROM deliveries WHERE id >= $1 AND id < $2{of}
    ORDER BY id LIMIT 1 OFFSET {n}) AS d
UNION ALL
SELECT id FROM (SELECT id FROM attempts WHERE id >= $1 AND id < $2{of}
    ORDER BY id LIMIT 1 OFFSET {n}) AS a";

/// The lowest of the nth ids (from 0) of a scope in the tables. None if no table has that many.
pub async fn nth(
    transaction: &DatabaseTransaction,
    scope: AuditScope,
    n: u32,
) -> Result<Option<Uuid>> {
    let text = NTH.replace("{n}", &n.to_string()).replace("{of}", of(scope.project));
    let values = [scope.from.into(), scope.until.into()].into_iter().chain(project(scope));
    let rows = ask(transaction, text, values).await?;
    let ids: Vec<Uuid> = rows
        .iter()
        .map(|row| row.try_get_by_index(0).map_err(unavailable))
        .collect::<Result<_>>()?;
    Ok(ids.into_iter().min())
}

/// The tallies of a range.
pub async fn tallies(
    transaction: &DatabaseTransaction,
    range: AuditScope,
) -> Result<Vec<QueryResult>> {
    let tallies = TALLIES
        .replace("{waiting}", &WAITING.to_string())
        .replace("{held}", &HELD.to_string())
        .replace("{paused}", &(EndpointState::Paused as i16).to_string());
    with_findings(transaction, tallies, range).await
}

/// The first discrepancies of a range.
pub async fn findings(
    transaction: &DatabaseTransaction,
    range: AuditScope,
    limit: u32,
) -> Result<Vec<Finding>> {
    let rows =
        with_findings(transaction, LIST.replace("{limit}", &limit.to_string()), range).await?;
    rows.iter()
        .map(|row| {
            let kind = Discrepancy::from_number(number(row, "kind")?)
                .ok_or_else(|| malformed_row("findings", "kind"))?;
            let project = ProjectId(row.try_get("", "project_id").map_err(unavailable)?);
            let id = row.try_get("", "id").map_err(unavailable)?;
            Ok(Finding { kind, project, id, count: number(row, "n")?.unsigned_abs() })
        })
        .collect()
}

async fn with_findings(
    transaction: &DatabaseTransaction,
    query: String,
    range: AuditScope,
) -> Result<Vec<QueryResult>> {
    let text = format!("{FINDINGS}{query}").replace("{of}", of(range.project));
    let values = [range.from.into(), range.until.into()].into_iter().chain(project(range));
    ask(transaction, text, values).await
}

fn project(scope: AuditScope) -> Option<Value> {
    scope.project.map(|project| project.0.into())
}

/// The condition on the project, whose value follows those of the range.
fn of(project: Option<ProjectId>) -> &'static str {
    project.map_or("", |_| " AND project_id = $3")
}

/// The rows of a statement.
pub async fn ask(
    transaction: &DatabaseTransaction,
    text: String,
    values: impl IntoIterator<Item = Value>,
) -> Result<Vec<QueryResult>> {
    let statement =
        Statement::from_sql_and_values(transaction.get_database_backend(), text, values);
    transaction.query_all_raw(statement).await.map_err(unavailable)
}

/// A number in a row.
pub fn number(row: &QueryResult, column: &str) -> Result<i64> {
    row.try_get("", column).map_err(unavailable)
}
