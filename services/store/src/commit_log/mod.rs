//! The log of commits: which events a commit accepted, which deliveries it moved. What tails read.
//!
//! The ledger writes it, in the very statement that accepts, settles or cancels: a row for each
//! commit, kind and project. A reader goes by place, in the order of commits, and takes only what
//! no commit under way can still come before:
//!
//! - On PostgreSQL a position is the id of the transaction, and a reader takes only what is below
//!   the oldest one under way. Commits that finish out of order are seen late rather than skipped.
//!   A transaction that writes for long, in any database of the server, holds readers back until it
//!   ends.
//! - On SQLite one writer counts.
//!
//! Rows are kept for a while ([`crate::Ledger::prune_log`]); who comes back later is told so.

/// What a statement read, whose rows are those of either backend: the end and the beginning stand
/// in every row, and a log without rows has one without a position.
macro_rules! read_from_rows {
    ($found:expr) => {{
        let first = $found.first().ok_or(sqlx::Error::RowNotFound)?;
        let (end, kept_from) = (first.try_get("horizon")?, Timestamp(first.try_get("kept_from")?));
        let mut rows = Vec::with_capacity($found.len());
        for row in &$found {
            let Some(position) = row.try_get("position")? else { continue };
            rows.push(Row {
                position,
                created_at: Timestamp(row.try_get("created_at")?),
                entries: row.try_get("entries")?,
            });
        }
        Ok(Read { rows, end, kept_from })
    }};
}

mod postgres;
mod sqlite;
#[cfg(test)]
mod tests;

use outrider_model::{AttemptId, Error, ProjectId, Reason, Result, Timestamp};
use outrider_shares::Holder;
use uuid::Uuid;

use crate::{Backend, Store, error::unavailable_sql};

pub(crate) use postgres::{logged, prune as prune_postgres};
pub(crate) use sqlite::{Entries, prune as prune_sqlite, write};

/// Rows read at once. A row is one commit: up to a few hundred entries of 16 or 32 bytes.
const ROWS: u32 = 32;

/// Rows are kept for longer than they are promised by this much: they bear the time at which their
/// transaction began.
const KEPT_BEYOND: std::time::Duration = std::time::Duration::from_secs(3600);

/// What an entry of the log is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i16)]
pub enum LogKind {
    /// Events that were accepted.
    Events = 1,
    /// Deliveries that were attempted, held or cancelled.
    Deliveries = 2,
}

impl LogKind {
    /// By its stored number.
    #[must_use]
    pub fn from_number(number: i16) -> Option<Self> {
        match number {
            1 => Some(Self::Events),
            2 => Some(Self::Deliveries),
            _ => None,
        }
    }

    /// Bytes of an entry.
    fn entry_bytes(self) -> usize {
        match self {
            Self::Events => 16,
            Self::Deliveries => 32,
        }
    }
}

/// A place in the log: that of the next entry to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPlace {
    /// When what lies before it was committed, about: what may have been pruned since is told by
    /// this.
    pub at: Timestamp,
    /// The commit.
    pub position: i64,
    /// How many of that commit's entries were read.
    pub index: u32,
}

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEntry {
    /// The event or the delivery.
    pub id: Uuid,
    /// The attempt that was recorded with it.
    pub attempt: Option<AttemptId>,
    /// The place after it.
    pub next: LogPlace,
}

/// Entries in the order of their commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPage {
    pub entries: Vec<LogEntry>,
    /// Where to go on.
    pub next: LogPlace,
    /// Whether there was nothing more at this moment.
    pub complete: bool,
}

/// What the log was asked and how it stood: rows, the end of what may be read, and since when rows
/// are kept.
struct Read {
    rows: Vec<Row>,
    end: i64,
    kept_from: Timestamp,
}

struct Row {
    position: i64,
    created_at: Timestamp,
    entries: Vec<u8>,
}

impl Store {
    /// A number that is this database's own: places of another one mean nothing here.
    pub async fn log_identity(&self) -> Result<i64> {
        self.within(async {
            match self.backend() {
                Backend::Postgres => postgres::identity(self.postgres_pool()).await,
                Backend::Sqlite => sqlite::identity(self.sqlite_pool()).await,
            }
            .map_err(unavailable_sql)
        })
        .await
    }

    /// The place of what is committed from now on, for a caller.
    pub async fn log_end(&self, holder: Holder) -> Result<LogPlace> {
        let _turn = self.connection_turn(holder).await?;
        self.own_log_end().await
    }

    async fn own_log_end(&self) -> Result<LogPlace> {
        self.within(async {
            let position = match self.backend() {
                Backend::Postgres => postgres::end(self.postgres_pool()).await,
                Backend::Sqlite => sqlite::end(self.sqlite_pool()).await,
            };
            Ok(LogPlace {
                at: self.clock().now(),
                position: position.map_err(unavailable_sql)?,
                index: 0,
            })
        })
        .await
    }

    /// Up to `limit` entries of a project from a place on, in the turn of a caller. Who may see
    /// what the ids stand for is checked when that is read. Errors: `CURSOR_EXPIRED` when what lies
    /// there may have been pruned or the place is not of this database's past.
    pub async fn read_log(
        &self,
        holder: Holder,
        kind: LogKind,
        project: ProjectId,
        from: LogPlace,
        limit: usize,
    ) -> Result<LogPage> {
        let _turn = self.connection_turn(holder).await?;
        self.within(async {
            let now = self.clock().now();
            let read = match self.backend() {
                Backend::Postgres => {
                    postgres::read(self.postgres_pool(), kind, project, from, now).await
                }
                Backend::Sqlite => sqlite::read(self.sqlite_pool(), kind, project, from).await,
            };
            read.map_err(unavailable_sql)?.page(kind, from, now, limit)
        })
        .await
    }

    /// Which of these logs have something from a position on, or all of them when none is given,
    /// and the position from which to ask the next time.
    pub async fn logged_since(
        &self,
        from: Option<i64>,
        logs: Vec<(LogKind, ProjectId)>,
    ) -> Result<(Vec<(LogKind, ProjectId)>, i64)> {
        self.within(async {
            let Some(from) = from else { return Ok((logs, self.own_log_end().await?.position)) };
            match self.backend() {
                Backend::Postgres => {
                    postgres::since(self.postgres_pool(), from, &logs, self.clock().now()).await
                }
                Backend::Sqlite => sqlite::since(self.sqlite_pool(), from, &logs).await,
            }
            .map_err(unavailable_sql)
        })
        .await
    }
}

impl Read {
    fn page(self, kind: LogKind, from: LogPlace, now: Timestamp, limit: usize) -> Result<LogPage> {
        if from.at < self.kept_from {
            return Err(Error::new(
                Reason::CursorExpired,
                "the cursor is from before what is kept",
            ));
        }
        if from.position > self.end {
            return Err(Error::new(
                Reason::CursorExpired,
                "the cursor is not of this database's past",
            ));
        }
        let more_rows = self.rows.len() >= ROWS as usize;
        let mut entries = Vec::new();
        for row in &self.rows {
            let skip = if row.position == from.position { from.index as usize } else { 0 };
            row.read(kind, skip, &mut entries);
            if entries.len() > limit {
                break;
            }
        }
        let complete = !more_rows && entries.len() <= limit;
        entries.truncate(limit);
        let next = match entries.last() {
            // Also past what belongs to others: the place keeps its age.
            _ if complete => LogPlace { at: now, position: self.end, index: 0 },
            Some(last) => last.next,
            // Rows without entries are never written; one whose entries were all read may still be
            // met.
            None => self.rows.last().map_or(from, Row::after),
        };
        Ok(LogPage { entries, next, complete })
    }
}

impl Row {
    fn after(&self) -> LogPlace {
        LogPlace { at: self.created_at, position: self.position + 1, index: 0 }
    }

    fn read(&self, kind: LogKind, skip: usize, entries: &mut Vec<LogEntry>) {
        let chunks = self.entries.chunks_exact(kind.entry_bytes());
        let count = chunks.len();
        for (index, chunk) in chunks.enumerate().skip(skip) {
            let (id, attempt) = chunk.split_at(16);
            let next = if index + 1 == count {
                self.after()
            } else {
                LogPlace {
                    at: self.created_at,
                    position: self.position,
                    index: u32::try_from(index + 1).unwrap_or(u32::MAX),
                }
            };
            let id = Uuid::from_slice(id).unwrap_or_default();
            let attempt = AttemptId::from_bytes(attempt).filter(|attempt| !attempt.0.is_nil());
            entries.push(LogEntry { id, attempt, next });
        }
    }
}
