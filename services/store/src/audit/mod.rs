//! The audit of the ledger: whether everything that was accepted is accounted for, told from the
//! tables alone.
//!
//! What a commit of events promised stands in each event's row (`delivery_count`); each of these
//! deliveries must be one row, either of `pending_deliveries` or of `deliveries`. Ids of deliveries
//! and attempts share the millisecond of their event (or replay), so a range of time is one range
//! of ids in all of these tables, and history is judged range by range, each in one snapshot: a
//! delivery that ends while it is looked at is either pending or ended, never neither.
//!
//! What retention has dropped is gone, not lost: it drops an event with its deliveries, attempts
//! and numbers of replays at once. The delivery of a replay and a key may point at an event that
//! was dropped.

mod findings;
mod keys;
mod statements;
#[cfg(test)]
mod tests;
mod turn;

use std::{cmp::min, collections::BTreeMap};

use outrider_model::{
    DeliveryReason, DeliveryStatus, ProjectId, Result, Timestamp, id::uuid_bound,
};
use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseTransaction, IsolationLevel, QueryResult,
    TransactionOptions, TransactionTrait,
};
use uuid::Uuid;

use crate::{Backend, Store, error::unavailable};
use statements::Sort;

pub use findings::{Discrepancy, Finding};
pub use keys::{AuditedKeys, KeyPlace};
pub use turn::AuditTurn;

/// Rows of one table in a range, at most, if not more share a millisecond. Default of
/// [`AuditScope::rows`].
const ROWS: u32 = 5_000;
/// How PostgreSQL plans the audit: once per session, whatever statistics say. Every table is read
/// by a range of its index, in order; what is joined are two such ranges, whole, which a nested
/// loop would multiply; what lies outside is a descent of a subquery. No other processors are taken
/// for it, and nothing is compiled. The lock, which nobody but the sweep waits for, comes before
/// the snapshot is taken: no day is dropped between that and the look.
const PLANNER: &str = "SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_nestloop = off; \
    SET LOCAL enable_bitmapscan = off; SET LOCAL enable_seqscan = off; SET LOCAL max_parallel_workers_per_gather = 0; \
    SET LOCAL jit = off; LOCK TABLE ONLY events, ONLY attempts, ONLY deliveries IN ACCESS SHARE MODE";
/// Findings listed of one range, at most. Their numbers are complete.
const LISTED: u32 = 1_000;

/// What is audited, and in which steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditScope {
    /// From this id on.
    pub from: Uuid,
    /// Before this id.
    pub until: Uuid,
    /// Only of this project.
    pub project: Option<ProjectId>,
    /// Rows of one table in a step, at most, if not more share a millisecond: it bounds the memory
    /// and time of a step. Default 5,000.
    pub rows: u32,
}

impl AuditScope {
    /// Everything.
    pub const ALL: Self = Self { from: Uuid::nil(), until: Uuid::max(), project: None, rows: ROWS };

    /// What was accepted or replayed in a time, to the millisecond.
    #[must_use]
    pub fn during(self, since: Option<Timestamp>, until: Option<Timestamp>) -> Self {
        Self {
            from: since.map_or(self.from, uuid_bound),
            until: until.map_or(self.until, uuid_bound),
            ..self
        }
    }
}

/// The deliveries of a project: what was promised and what became of it. Of no corruption, `owed +
/// replays = delivered + failed + endpoint_deleted + project_deleted + other_ended + queued +
/// waiting + held`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProjectAudit {
    /// Accepted events.
    pub events: u64,
    /// Accepted events that no subscription wanted.
    pub unrouted: u64,
    /// Deliveries that the commits of these events wrote.
    pub owed: u64,
    /// Deliveries made by a retry of an ended one.
    pub replays: u64,
    /// Ended by a success.
    pub delivered: u64,
    /// Ended when the schedule was used up.
    pub failed: u64,
    /// Cancelled: their endpoint was deleted.
    pub endpoint_deleted: u64,
    /// Cancelled: the project was deleted.
    pub project_deleted: u64,
    /// Ended for a reason that this version does not know.
    pub other_ended: u64,
    /// Pending, and marked as queued.
    pub queued: u64,
    /// Pending in the database only: due later, or without room in the queue.
    pub waiting: u64,
    /// Pending in the database only, at a paused endpoint.
    pub held: u64,
    /// What does not add up, by its kind; without those of number 0.
    pub discrepancies: BTreeMap<Discrepancy, u64>,
}

impl ProjectAudit {
    /// Deliveries that were owed and are nowhere: must be 0.
    #[must_use]
    pub fn unaccounted(&self) -> u64 {
        self.sum(Discrepancy::is_loss)
    }

    /// Rows in excess of what was owed: must be 0.
    #[must_use]
    pub fn doubled(&self) -> u64 {
        self.sum(|kind| matches!(kind, Discrepancy::DoubledDelivery | Discrepancy::DoubledReplay))
    }

    fn sum(&self, of: impl Fn(Discrepancy) -> bool) -> u64 {
        self.discrepancies.iter().filter(|(kind, _)| of(**kind)).map(|(_, count)| count).sum()
    }

    /// Adds what another range of the same project has.
    pub fn add(&mut self, other: &Self) {
        let numbers = |audit: &mut Self, other: &Self| {
            audit.events += other.events;
            audit.unrouted += other.unrouted;
            audit.owed += other.owed;
            audit.replays += other.replays;
            audit.delivered += other.delivered;
            audit.failed += other.failed;
            audit.endpoint_deleted += other.endpoint_deleted;
            audit.project_deleted += other.project_deleted;
            audit.other_ended += other.other_ended;
            audit.queued += other.queued;
            audit.waiting += other.waiting;
            audit.held += other.held;
        };
        numbers(self, other);
        for (kind, count) in &other.discrepancies {
            *self.discrepancies.entry(*kind).or_default() += count;
        }
    }
}

/// One step of an audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audited {
    /// Up to before this id; the next step begins here.
    pub until: Uuid,
    /// What was found, by project.
    pub projects: BTreeMap<ProjectId, ProjectAudit>,
    /// What does not add up, oldest first: the first 1,000.
    pub findings: Vec<Finding>,
}

impl Store {
    /// Audits the first range of a scope, in one snapshot. Reads only. A caller goes on with `from`
    /// at [`Audited::until`] until that is the scope's end. Errors: `UNAVAILABLE` when the database
    /// does not answer or the step exceeds the statement timeout.
    pub async fn audit(&self, scope: AuditScope) -> Result<Audited> {
        self.step_within(async {
            let transaction = self.snapshot().await?;
            let until = range_end(&transaction, scope).await?;
            let range = AuditScope { until, ..scope };
            let tallies = statements::tallies(&transaction, range).await?;
            let mut projects = BTreeMap::new();
            for row in &tallies {
                count(&mut projects, row)?;
            }
            let bad =
                projects.values().any(|project: &ProjectAudit| !project.discrepancies.is_empty());
            let findings = if bad {
                statements::findings(&transaction, range, LISTED).await?
            } else {
                Vec::new()
            };
            transaction.rollback().await.map_err(unavailable)?;
            Ok(Audited { until, projects, findings })
        })
        .await
    }

    /// A transaction that reads one state of the database.
    async fn snapshot(&self) -> Result<DatabaseTransaction> {
        // On SQLite the first statement that reads takes the snapshot.
        let options = match self.backend() {
            Backend::Postgres => TransactionOptions {
                isolation_level: Some(IsolationLevel::RepeatableRead),
                access_mode: Some(AccessMode::ReadOnly),
                ..TransactionOptions::default()
            },
            Backend::Sqlite => TransactionOptions::default(),
        };
        let transaction = self.read().begin_with_options(options).await.map_err(unavailable)?;
        if self.backend() == Backend::Postgres {
            transaction.execute_unprepared(PLANNER).await.map_err(unavailable)?;
        }
        Ok(transaction)
    }
}

/// Where a range ends that has about as many rows as wanted in the fullest of the tables: at a
/// millisecond, which is never divided.
async fn range_end(transaction: &DatabaseTransaction, scope: AuditScope) -> Result<Uuid> {
    let Some(first) = statements::nth(transaction, scope, scope.rows).await? else {
        return Ok(scope.until);
    };
    let end = millisecond(first);
    if end > scope.from {
        return Ok(end);
    }
    Ok(min(
        scope.until,
        Uuid::from_u128((millisecond(scope.from).as_u128() >> 80).saturating_add(1) << 80),
    ))
}

/// The first id of the millisecond of the oldest row there is: what is older was dropped.
async fn floor(transaction: &DatabaseTransaction) -> Result<Uuid> {
    Ok(statements::nth(transaction, AuditScope::ALL, 0).await?.map_or(Uuid::max(), millisecond))
}

fn millisecond(id: Uuid) -> Uuid {
    Uuid::from_u128(id.as_u128() >> 80 << 80)
}

fn number(row: &QueryResult, column: &str) -> Result<i64> {
    row.try_get("", column).map_err(unavailable)
}

/// Adds a row of the tallies to its project.
fn count(projects: &mut BTreeMap<ProjectId, ProjectAudit>, row: &QueryResult) -> Result<()> {
    let project =
        projects.entry(ProjectId(row.try_get("", "project_id").map_err(unavailable)?)).or_default();
    let (sort, a, b) = (number(row, "sort")?, number(row, "a")?, number(row, "b")?);
    let n = number(row, "n")?.unsigned_abs();
    match Sort::from_number(sort) {
        Some(Sort::Events) => project.events += n,
        Some(Sort::Unrouted) => project.unrouted += n,
        Some(Sort::Owed) => project.owed += n,
        Some(Sort::Replays) => project.replays += n,
        Some(Sort::Deliveries) => *place(project, a, b) += n,
        Some(Sort::Findings) => {
            if let Some(kind) = Discrepancy::from_number(a) {
                *project.discrepancies.entry(kind).or_default() += n;
                match kind {
                    Discrepancy::MissingReplay => project.replays += n,
                    Discrepancy::DoubledReplay => project.replays -= n.min(project.replays),
                    _ => {}
                }
            }
        }
        None => {}
    }
    Ok(())
}

/// Where deliveries of a status and reason are counted.
fn place(project: &mut ProjectAudit, status: i64, reason: i64) -> &mut u64 {
    let known = |number: i64| i32::try_from(number).ok();
    match (
        known(status).and_then(DeliveryStatus::from_number),
        known(reason).and_then(DeliveryReason::from_number),
    ) {
        (Some(DeliveryStatus::Pending), _) if reason == statements::QUEUED => &mut project.queued,
        (Some(DeliveryStatus::Pending), _) if reason == statements::HELD => &mut project.held,
        (Some(DeliveryStatus::Pending), _) => &mut project.waiting,
        (Some(DeliveryStatus::Delivered), _) => &mut project.delivered,
        (Some(DeliveryStatus::Failed), _) => &mut project.failed,
        (Some(DeliveryStatus::Cancelled), Some(DeliveryReason::EndpointDeleted)) => {
            &mut project.endpoint_deleted
        }
        (Some(DeliveryStatus::Cancelled), Some(DeliveryReason::ProjectDeleted)) => {
            &mut project.project_deleted
        }
        _ => &mut project.other_ended,
    }
}
