//! The outcome of a step of retention.

/// Maximum number of rows that a step deletes if it deletes no payloads.
pub(super) const ROWS: u64 = 1_000;

/// What was deleted from a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeletedRows {
    pub table: &'static str,
    /// Number of partitions that were dropped.
    pub partitions: u64,
    /// Number of rows that were deleted.
    pub rows: u64,
}

/// The progress of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There is nothing more to do now.
    Done,
    /// There may be more.
    More,
    /// A pending delivery refers to it.
    Held,
    /// Another process is doing it, or uses what would be deleted: a later sweep tries again.
    Blocked,
}

/// The outcome of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub gone: Vec<DeletedRows>,
    pub progress: Progress,
}

impl Step {
    pub(super) fn nothing(progress: Progress) -> Self {
        Self { gone: Vec::new(), progress }
    }

    /// Rows of a table were deleted. There may be more if it was the maximum of a step.
    pub(super) fn rows(table: &'static str, rows: u64) -> Self {
        let progress = if rows >= ROWS { Progress::More } else { Progress::Done };
        Self {
            gone: (rows > 0)
                .then_some(DeletedRows { table, partitions: 0, rows })
                .into_iter()
                .collect(),
            progress,
        }
    }
}
