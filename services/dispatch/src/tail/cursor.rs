//! Cursors of tails: opaque to callers, and bound to the database, the kind of tail and the
//! project.
//!
//! A cursor is neither secret nor signed. It names a position in a log, and reading from there
//! passes the same checks of the principal as a tail that begins now.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use outrider_model::{Error, ProjectId, Reason, Result, Timestamp};
use outrider_store::{LogKind, LogPosition};

/// The version of the layout. A cursor of another version is refused.
const VERSION: u8 = 1;
const BYTES: usize = 1 + 1 + 16 + 8 + 8 + 8 + 4;

/// Writes and reads the cursors of one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursors {
    pub kind: LogKind,
    pub project: ProjectId,
    /// The identity of the database.
    pub identity: i64,
}

impl Cursors {
    /// Writes the cursor of a position.
    pub fn write(&self, place: LogPosition) -> String {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend([VERSION, self.kind as u8]);
        bytes.extend(self.project.as_bytes());
        bytes.extend(self.identity.to_be_bytes());
        bytes.extend(place.at.0.to_be_bytes());
        bytes.extend(place.position.to_be_bytes());
        bytes.extend(place.index.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads the position of a cursor. Errors: `INVALID_FIELD` if it does not belong to this
    /// project and kind of tail, `CURSOR_EXPIRED` if it belongs to another database.
    pub fn read(&self, text: &str) -> Result<LogPosition> {
        let refused = |why: &str| Error::field("cursor", why);
        let malformed = || refused("is not a cursor of an earlier message");
        // An encoded cursor has a fixed length. A longer text is not decoded.
        let bytes = Some(text)
            .filter(|text| text.len() <= 2 * BYTES)
            .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let bytes = bytes.filter(|bytes| bytes.len() == BYTES).ok_or_else(malformed)?;
        let (head, rest) = bytes.split_at(2);
        let (project, rest) = rest.split_at(16);
        let (numbers, index) = rest.split_at(24);
        let number = |nth: usize| {
            numbers[nth * 8..].first_chunk().map_or(0, |bytes| i64::from_be_bytes(*bytes))
        };
        if head[0] != VERSION {
            return Err(malformed());
        }
        if head[1] != self.kind as u8 {
            return Err(refused("is of the other kind of tail"));
        }
        if project != self.project.as_bytes() {
            return Err(refused("is of another project"));
        }
        if number(0) != self.identity {
            return Err(Error::new(Reason::CursorExpired, "the cursor is of another database"));
        }
        let index = index.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        let place = LogPosition { at: Timestamp(number(1)), position: number(2), index };
        if place.position < 0 { Err(malformed()) } else { Ok(place) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursors() -> Cursors {
        Cursors { kind: LogKind::Events, project: ProjectId::new(Timestamp(5), 7), identity: -3 }
    }

    #[test]
    fn cursors_come_back_as_they_were() {
        for (at, position, index) in [(0, 0, 0), (1, 2, 3), (i64::MAX, i64::MAX, u32::MAX)] {
            let place = LogPosition { at: Timestamp(at), position, index };
            assert_eq!(cursors().read(&cursors().write(place)), Ok(place));
        }
    }

    #[test]
    fn cursors_of_others_are_refused() {
        let text = cursors().write(LogPosition { at: Timestamp(1), position: 2, index: 3 });
        let reason = |cursors: Cursors| cursors.read(&text).unwrap_err().reason;
        assert_eq!(
            reason(Cursors { kind: LogKind::Deliveries, ..cursors() }),
            Reason::InvalidField
        );
        assert_eq!(
            reason(Cursors { project: ProjectId::new(Timestamp(5), 8), ..cursors() }),
            Reason::InvalidField
        );
        assert_eq!(reason(Cursors { identity: 3, ..cursors() }), Reason::CursorExpired);
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let text = cursors().write(LogPosition { at: Timestamp(1), position: 2, index: 3 });
        let negative = cursors().write(LogPosition { at: Timestamp(1), position: -2, index: 3 });
        let later = text.replacen('A', "B", 1);
        let (short, long, huge) = (&text[1..], format!("{text}AAAA"), "A".repeat(1 << 20));
        for bad in ["", "?", "é", "AAAA", short, &long, &huge, &negative, &later] {
            let error = cursors().read(bad).unwrap_err();
            assert_eq!(
                (error.reason, error.violations[0].field.as_str()),
                (Reason::InvalidField, "cursor"),
                "{bad:.40}"
            );
        }
    }
}
