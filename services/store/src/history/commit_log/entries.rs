//! The entries of the log and their places.

use outrider_model::{AttemptId, Timestamp};
use uuid::Uuid;

/// The kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i16)]
pub enum LogKind {
    /// Events that were accepted.
    Events = 1,
    /// Deliveries that were attempted, held or canceled.
    Deliveries = 2,
}

impl LogKind {
    /// From the stored number.
    #[must_use]
    pub fn from_number(number: i16) -> Option<Self> {
        match number {
            1 => Some(Self::Events),
            2 => Some(Self::Deliveries),
            _ => None,
        }
    }

    /// The size of an entry in bytes.
    pub(super) fn entry_bytes(self) -> usize {
        match self {
            Self::Events => 16,
            Self::Deliveries => 32,
        }
    }
}

/// A place in the log: the next entry to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPosition {
    /// The approximate commit time of the entries before it. Shows whether entries after it may
    /// have been pruned.
    pub at: Timestamp,
    /// The commit.
    pub position: i64,
    /// The number of that commit's entries that were read.
    pub index: u32,
}

/// An entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEntry {
    /// The event or the delivery.
    pub id: Uuid,
    /// The attempt that was recorded with it.
    pub attempt: Option<AttemptId>,
    /// The place after it.
    pub next: LogPosition,
}

/// Entries in the order of their commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPage {
    pub entries: Vec<LogEntry>,
    /// Where to continue.
    pub next: LogPosition,
    /// Whether these were all entries at this moment.
    pub complete: bool,
}
