//! The audit of the ledger: proves from the tables alone that everything that was accepted is
//! accounted for.
//!
//! Each event's row contains the number of deliveries that its commit wrote (`delivery_count`).
//! Each of these deliveries must be one row, either of `pending_deliveries` or of `deliveries`. Ids
//! of deliveries and attempts share the millisecond of their event (or replay), so a time range is
//! one range of ids in all of these tables. History is audited range by range, each in one
//! snapshot: a delivery that ends meanwhile is either pending or ended, never neither.
//!
//! What retention has dropped does not count as lost: it drops an event together with its
//! deliveries, attempts and replay numbers. The delivery of a replay and an idempotency key may
//! refer to an event that was dropped.

mod findings;
mod keys;
mod range;
mod scope;
mod statements;
mod tally;
#[cfg(test)]
mod tests;
mod turn;

use std::collections::BTreeMap;

use outrider_model::{ProjectId, Result};
use uuid::Uuid;

use crate::{Store, connection::error::unavailable};
use range::{range_end, snapshot};
use tally::count;

pub use findings::{Discrepancy, Finding};
pub use keys::{AuditedKeys, KeyPosition};
pub use scope::AuditScope;
pub use tally::ProjectAudit;
pub use turn::AuditTurn;

/// Maximum number of findings listed for a range. Their counts are complete.
const LISTED: u32 = 1_000;

/// The result of a step of an audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audited {
    /// The end of the range. The next step begins at this id.
    pub until: Uuid,
    /// The tallies, by project.
    pub projects: BTreeMap<ProjectId, ProjectAudit>,
    /// The first 1,000 discrepancies, oldest first.
    pub findings: Vec<Finding>,
}

impl Store {
    /// Audits the first range of a scope in one snapshot. Only reads. The caller continues with
    /// `from` at [`Audited::until`] until that is the end of the scope. Errors: `UNAVAILABLE` if
    /// the database does not answer or the step exceeds the statement timeout.
    pub async fn audit(&self, scope: AuditScope) -> Result<Audited> {
        self.step_within(async {
            let transaction = snapshot(self).await?;
            let until = range_end(&transaction, scope).await?;
            let range = AuditScope { until, ..scope };
            let tallies = statements::tallies(&transaction, range).await?;
            let mut projects = BTreeMap::new();
            for row in &tallies {
                count(&mut projects, row)?;
            }
            let any =
                projects.values().any(|project: &ProjectAudit| !project.discrepancies.is_empty());
            let findings = if any {
                statements::findings(&transaction, range, LISTED).await?
            } else {
                Vec::new()
            };
            transaction.rollback().await.map_err(unavailable)?;
            Ok(Audited { until, projects, findings })
        })
        .await
    }
}
