//! The tallies of an audit, by project.

use std::collections::BTreeMap;

use outrider_model::{DeliveryReason, DeliveryStatus, ProjectId, Result};
use sea_orm::QueryResult;

use super::{
    findings::Discrepancy,
    statements::{self, Tally, number},
};
use crate::connection::error::unavailable;

/// The deliveries of a project: how many were owed, and their states. Without corruption, `owed +
/// replays = delivered + failed + endpoint_deleted + project_deleted + other_ended + queued +
/// waiting + held`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProjectAudit {
    /// Accepted events.
    pub events: u64,
    /// Accepted events that matched no subscription.
    pub unrouted: u64,
    /// Deliveries that the commits of these events wrote.
    pub owed: u64,
    /// Deliveries created by a retry of an ended one.
    pub replays: u64,
    /// Ended by success.
    pub delivered: u64,
    /// Ended when the retry schedule was exhausted.
    pub failed: u64,
    /// Canceled because their endpoint was deleted.
    pub endpoint_deleted: u64,
    /// Canceled because the project was deleted.
    pub project_deleted: u64,
    /// Ended for a reason that this version does not know.
    pub other_ended: u64,
    /// Pending and marked as queued.
    pub queued: u64,
    /// Pending only in the database: due later, or without room in the queue.
    pub waiting: u64,
    /// Pending only in the database, at a paused endpoint.
    pub held: u64,
    /// The number of discrepancies by kind. Kinds without any are left out.
    pub discrepancies: BTreeMap<Discrepancy, u64>,
}

impl ProjectAudit {
    /// Deliveries that were owed and are missing. Must be 0.
    #[must_use]
    pub fn unaccounted(&self) -> u64 {
        self.sum(Discrepancy::is_loss)
    }

    /// Rows in excess of what was owed. Must be 0.
    #[must_use]
    pub fn doubled(&self) -> u64 {
        self.sum(|kind| matches!(kind, Discrepancy::DoubledDelivery | Discrepancy::DoubledReplay))
    }

    fn sum(&self, of: impl Fn(Discrepancy) -> bool) -> u64 {
        self.discrepancies.iter().filter(|(kind, _)| of(**kind)).map(|(_, count)| count).sum()
    }

    /// Adds the numbers of another range of the same project.
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

/// Adds a row of the tallies to its project.
pub(super) fn count(
    projects: &mut BTreeMap<ProjectId, ProjectAudit>,
    row: &QueryResult,
) -> Result<()> {
    let project =
        projects.entry(ProjectId(row.try_get("", "project_id").map_err(unavailable)?)).or_default();
    let (tally, a, b) = (number(row, "tally")?, number(row, "a")?, number(row, "b")?);
    let n = number(row, "n")?.unsigned_abs();
    match Tally::from_number(tally) {
        Some(Tally::Events) => project.events += n,
        Some(Tally::Unrouted) => project.unrouted += n,
        Some(Tally::Owed) => project.owed += n,
        Some(Tally::Replays) => project.replays += n,
        Some(Tally::Deliveries) => *state(project, a, b) += n,
        Some(Tally::Findings) => {
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

/// The counter for deliveries of a status and reason.
fn state(project: &mut ProjectAudit, status: i64, reason: i64) -> &mut u64 {
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
