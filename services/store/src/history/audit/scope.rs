//! The scope of an audit.

use outrider_model::{ProjectId, Timestamp, id::uuid_bound};
use uuid::Uuid;

/// Default of [`AuditScope::rows`].
const ROWS: u32 = 5_000;
/// The scope of an audit, and the size of its steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditScope {
    /// The first id.
    pub from: Uuid,
    /// The end of the range: ids before this one.
    pub until: Uuid,
    /// Restricts the audit to a project.
    pub project: Option<ProjectId>,
    /// Maximum number of rows of a table in a step, unless more share a millisecond. Bounds the
    /// memory and time of a step. Default: 5,000.
    pub rows: u32,
}

impl AuditScope {
    /// Everything.
    pub const ALL: Self = Self { from: Uuid::nil(), until: Uuid::max(), project: None, rows: ROWS };

    /// Restricts the audit to what was accepted or replayed in a time range, to the millisecond.
    #[must_use]
    pub fn during(self, since: Option<Timestamp>, until: Option<Timestamp>) -> Self {
        Self {
            from: since.map_or(self.from, uuid_bound),
            until: until.map_or(self.until, uuid_bound),
            ..self
        }
    }
}
