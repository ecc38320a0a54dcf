//! The rows of the log, as statements of either backend read them.

use outrider_model::{AttemptId, Error, Reason, Result, Timestamp};
use uuid::Uuid;

use super::entries::{LogEntry, LogKind, LogPage, LogPosition};

/// Converts the rows of a statement of either backend. Every row contains the beginning and the end
/// of the log. A log without rows is one row without a position.
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
pub(super) use read_from_rows;

/// Number of rows read at once. A row is one commit, with up to a few hundred entries of 16 or 32
/// bytes.
pub(super) const ROWS: u32 = 32;

/// Rows are kept this much longer than promised, because their time is that at which their
/// transaction began.
pub(super) const KEPT_BEYOND: std::time::Duration = std::time::Duration::from_secs(3600);

/// The result of reading the log: rows, the end of what may be read, and the time from which rows
/// are kept.
pub(super) struct Read {
    pub rows: Vec<Row>,
    pub end: i64,
    pub kept_from: Timestamp,
}

pub(super) struct Row {
    pub position: i64,
    pub created_at: Timestamp,
    pub entries: Vec<u8>,
}

impl Read {
    /// Up to `limit` entries after `from`.
    pub fn page(
        self,
        kind: LogKind,
        from: LogPosition,
        now: Timestamp,
        limit: usize,
    ) -> Result<LogPage> {
        if from.at < self.kept_from {
            return Err(Error::new(Reason::CursorExpired, "the cursor is older than what is kept"));
        }
        if from.position > self.end {
            return Err(Error::new(
                Reason::CursorExpired,
                "the cursor is not from this database's past",
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
            // Skips the entries of other projects too, so that the place stays recent.
            _ if complete => LogPosition { at: now, position: self.end, index: 0 },
            Some(last) => last.next,
            // Rows without entries are never written, but the first row may have been read before.
            None => self.rows.last().map_or(from, Row::after),
        };
        Ok(LogPage { entries, next, complete })
    }
}

impl Row {
    fn after(&self) -> LogPosition {
        LogPosition { at: self.created_at, position: self.position + 1, index: 0 }
    }

    fn read(&self, kind: LogKind, skip: usize, entries: &mut Vec<LogEntry>) {
        let chunks = self.entries.chunks_exact(kind.entry_bytes());
        let count = chunks.len();
        for (index, chunk) in chunks.enumerate().skip(skip) {
            let (id, attempt) = chunk.split_at(16);
            let next = if index + 1 == count {
                self.after()
            } else {
                LogPosition {
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
