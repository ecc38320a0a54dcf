//! Splits bytes into lines as they arrive.

use bytes::{Bytes, BytesMut};
use outrider_model::{Error, Reason};

use crate::exchange::body::LIMIT_KEY;

/// A line that is not blank.
#[derive(Debug)]
pub(crate) struct Line {
    /// The number of the line in the body, from 1. Blank lines count.
    pub(crate) number: u64,
    /// The text, or an error if the line is too long.
    pub(crate) text: Result<Bytes, Error>,
}

/// Holds no more than one line, and the bytes that arrived with its end.
pub(crate) struct Lines {
    buffer: BytesMut,
    /// Length of the prefix of the buffer that has no line feed.
    searched: usize,
    /// Number of lines that ended.
    ended: u64,
    /// Maximum length of a line, in bytes.
    limit: usize,
    /// Whether the current line is over the limit, so that its bytes are dropped as they arrive.
    too_long: bool,
}

impl Lines {
    pub(crate) fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), searched: 0, ended: 0, limit, too_long: false }
    }

    pub(crate) fn push(&mut self, bytes: &Bytes) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the number of bytes in memory.
    pub(crate) fn held(&self) -> usize {
        self.buffer.len()
    }

    /// Returns the next complete line.
    pub(crate) fn next(&mut self) -> Option<Line> {
        while let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
            let mut text = self.buffer.split_to(self.searched + end + 1);
            self.searched = 0;
            text.truncate(text.len() - 1);
            if let Some(line) = self.line(text) {
                return Some(line);
            }
        }
        self.searched = self.buffer.len();
        if self.searched > self.limit {
            self.too_long = true;
            self.buffer.clear();
            self.searched = 0;
        }
        None
    }

    /// Returns the last line, which need not end with a line feed, after all complete lines were
    /// taken.
    pub(crate) fn last(&mut self) -> Option<Line> {
        let text = self.buffer.split();
        self.searched = 0;
        self.line(text)
    }

    fn line(&mut self, text: BytesMut) -> Option<Line> {
        self.ended += 1;
        let too_long = std::mem::take(&mut self.too_long) || text.len() > self.limit;
        if !too_long && text.iter().all(u8::is_ascii_whitespace) {
            return None;
        }
        let error = || {
            Error::new(
                Reason::TooLarge,
                format!("the line is over the limit of {} bytes ({LIMIT_KEY})", self.limit),
            )
        };
        Some(Line {
            number: self.ended,
            text: if too_long { Err(error()) } else { Ok(text.freeze()) },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parts: &[&str], limit: usize) -> Vec<(u64, String)> {
        let mut lines = Lines::new(limit);
        let mut read = Vec::new();
        for part in parts {
            lines.push(&Bytes::copy_from_slice(part.as_bytes()));
            while let Some(line) = lines.next() {
                read.push(line);
            }
            assert!(lines.buffer.len() <= limit + part.len());
        }
        read.extend(lines.last());
        let text = |text: Result<Bytes, Error>| {
            text.map_or_else(
                |error| error.reason.to_string(),
                |text| String::from_utf8(text.into()).unwrap(),
            )
        };
        read.into_iter().map(|line| (line.number, text(line.text))).collect()
    }

    #[test]
    fn lines_are_found_wherever_the_parts_are_cut() {
        let expected = [(1, "{}".to_owned()), (4, "[1]\r".to_owned()), (5, "last".to_owned())];
        assert_eq!(read(&["{}\n\n \t\r\n[1]\r\nlast"], 100), expected);
        let single: Vec<String> = "{}\n\n \t\r\n[1]\r\nlast".chars().map(String::from).collect();
        assert_eq!(read(&single.iter().map(String::as_str).collect::<Vec<_>>(), 100), expected);
        assert!(read(&["", "\n", "\n\n"], 100).is_empty());
    }

    #[test]
    fn a_line_over_the_limit_is_dropped_and_the_next_is_whole() {
        let too_large = "TOO_LARGE".to_owned();
        for parts in [
            &["123456\n12345\n"][..],
            &["123", "4", "5", "6", "\n12", "345"],
            &["123456", "       ", "\n12345"],
        ] {
            assert_eq!(
                read(parts, 5),
                [(1, too_large.clone()), (2, "12345".to_owned())],
                "{parts:?}"
            );
        }
        assert_eq!(read(&["123456"], 5), [(1, too_large)]);
    }
}
