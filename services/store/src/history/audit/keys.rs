//! Audits that idempotency keys refer to their events.

use std::collections::{BTreeMap, HashMap, HashSet};

use outrider_model::{ProjectId, Result, Timestamp};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, QueryResult};
use uuid::Uuid;

use super::{
    findings::{Discrepancy, Finding},
    range::{floor, snapshot},
    scope::AuditScope,
    statements::ask,
};
use crate::{
    Store,
    connection::error::unavailable,
    days::{day_of, id_range},
};

/// A place among the keys: directly after this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPosition {
    project: Uuid,
    key: String,
    day: i32,
}

/// The result of a step of an audit of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditedKeys {
    /// Where to continue. None at the end.
    pub next: Option<KeyPosition>,
    /// Number of audited keys, by project.
    pub keys: BTreeMap<ProjectId, u64>,
    /// Keys whose event is missing.
    pub findings: Vec<Finding>,
}

/// Keys in the order of their index, each with whether its event exists, which costs a descent into
/// one partition.
const KEYS: &str = "
SELECT k.project_id, k.key, k.day, k.event_id, (SELECT count(*) FROM events e
    WHERE e.id = k.event_id AND e.project_id = k.project_id AND e.idempotency_key = k.key) AS events
FROM idempotency_keys k
WHERE (k.project_id, k.key, k.day) > ($1, $2, $3) AND k.day BETWEEN $4 AND $5{of}
ORDER BY k.project_id, k.key, k.day LIMIT {rows}";

impl Store {
    /// Audits the idempotency keys of a scope after a place: those of its days whose event lies in
    /// the scope. Only reads, in one snapshot.
    pub async fn audit_keys(
        &self,
        scope: AuditScope,
        after: Option<KeyPosition>,
    ) -> Result<AuditedKeys> {
        self.step_within(async {
            let first = || KeyPosition {
                project: scope.project.map_or(Uuid::nil(), |project| project.0),
                key: String::new(),
                day: i32::MIN,
            };
            let place = after.unwrap_or_else(first);
            let transaction = snapshot(self).await?;
            let floor = floor(&transaction).await?;
            let of = if scope.project.is_some() { " AND k.project_id = $6" } else { "" };
            let text = KEYS.replace("{rows}", &scope.rows.to_string()).replace("{of}", of);
            // A key that was used near midnight is in the partitions of both days.
            let days = [day(scope.from).saturating_sub(1), day(scope.until).saturating_add(1)];
            let values = [
                place.project.into(),
                place.key.into(),
                place.day.into(),
                days[0].into(),
                days[1].into(),
            ];
            let rows = ask(
                &transaction,
                text,
                values.into_iter().chain(scope.project.map(|project| project.0.into())),
            )
            .await?;
            let kept = kept_from(&transaction, &rows).await?;
            transaction.rollback().await.map_err(unavailable)?;
            let mut audited =
                AuditedKeys { next: None, keys: BTreeMap::new(), findings: Vec::new() };
            for row in &rows {
                let get = |column: &str| row.try_get::<Uuid>("", column).map_err(unavailable);
                let (project, id) = (ProjectId(get("project_id")?), get("event_id")?);
                if !(scope.from..scope.until).contains(&id) {
                    continue;
                }
                *audited.keys.entry(project).or_default() += 1;
                let is_kept =
                    || id >= floor && kept.get(&day(id)).is_some_and(|first| id >= *first);
                if row.try_get::<i64>("", "events").map_err(unavailable)? == 0 && is_kept() {
                    audited.findings.push(Finding {
                        kind: Discrepancy::KeyWithoutEvent,
                        project,
                        id,
                        count: 1,
                    });
                }
            }
            if let Some(last) = rows.last().filter(|_| rows.len() == scope.rows as usize) {
                audited.next = Some(KeyPosition {
                    project: last.try_get("", "project_id").map_err(unavailable)?,
                    key: last.try_get("", "key").map_err(unavailable)?,
                    day: last.try_get("", "day").map_err(unavailable)?,
                });
            }
            Ok(audited)
        })
        .await
    }
}

fn day(id: Uuid) -> i32 {
    day_of(Timestamp(i64::try_from(id.as_u128() >> 80).unwrap_or(0).saturating_mul(1_000)))
}

/// For each day of a missing event that still has events, the id from which on all events should
/// exist: a key may be kept longer than its event, and on SQLite a day is deleted in parts, in the
/// order of ids.
async fn kept_from(
    transaction: &DatabaseTransaction,
    rows: &[QueryResult],
) -> Result<HashMap<i32, Uuid>> {
    const FIRST: &str = "SELECT id FROM events WHERE id >= $1 AND id < $2 ORDER BY id LIMIT 1";
    let mut days = HashSet::new();
    for row in rows {
        if row.try_get::<i64>("", "events").map_err(unavailable)? == 0 {
            days.insert(day(row.try_get("", "event_id").map_err(unavailable)?));
        }
    }
    let mut kept = HashMap::new();
    for day in days {
        let (from, until) = id_range(day);
        if let Some(first) =
            ask(transaction, FIRST.to_owned(), [from.into(), until.into()]).await?.first()
        {
            let first = first.try_get_by_index(0).map_err(unavailable)?;
            kept.insert(
                day,
                if transaction.get_database_backend() == DbBackend::Sqlite { first } else { from },
            );
        }
    }
    Ok(kept)
}
