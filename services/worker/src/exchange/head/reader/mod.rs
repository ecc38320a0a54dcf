//! Reads the head of a response before the HTTP library does: leniently, but strictly in everything
//! that determines where the response ends.
//!
//! The library refuses a response with a folded line or one header field too many, although its
//! status was clear. So [`Reader`] finds the head of the final response of each exchange. A regular
//! head is passed on unchanged. For any other, the library gets the one that `rewrite` makes of it.

use super::{
    regular::is_regular,
    rewrite::{Rewritten, rewrite},
    syntax::{status, without_end},
};
use crate::{
    exchange::{answer_bounds::HeadBounds, stream::Watch},
    fault::Fault,
};

/// The bytes for the HTTP library.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// None yet, because the head is incomplete.
    More,
    /// The bytes as they arrived.
    Same,
    /// These bytes instead of all that arrived.
    Instead(Vec<u8>),
    /// A head of our own, and then these bytes.
    Rewritten(Rewritten, Vec<u8>),
}

/// Reads the bytes of an exchange until the head of its final response has arrived.
#[derive(Debug)]
pub(crate) struct Reader {
    bounds: HeadBounds,
    part: Part,
    interim: usize,
    /// Bytes that arrived and were not passed on.
    held: Vec<u8>,
    /// Start of the current line, and the part of it that was read.
    line: usize,
    looked: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Before or in a status line.
    Status,
    /// In the fields of an interim response.
    Interim,
    /// In the fields of the final response, whose head began there.
    Final { begin: usize },
    /// After its head.
    Done,
}

/// The position of the final head.
struct Found {
    begin: usize,
    end: usize,
    /// Whether it is larger than the limit.
    cut: bool,
}

impl Reader {
    pub(crate) fn new(bounds: HeadBounds) -> Self {
        Self {
            bounds,
            part: Part::Status,
            interim: bounds.interim,
            held: Vec::new(),
            line: 0,
            looked: 0,
        }
    }

    /// Reads the next bytes. Reports the status to the watch as soon as its line has arrived.
    pub(crate) fn advance(&mut self, bytes: &[u8], watch: &Watch) -> Result<Read, Fault> {
        if self.part == Part::Done {
            return Ok(Read::Same);
        }
        let mut held = std::mem::take(&mut self.held);
        let whole = held.is_empty();
        let text = if whole {
            bytes
        } else {
            held.extend_from_slice(bytes);
            &held
        };
        let Some(Found { begin, end, cut }) = self.find(text, watch)? else {
            self.held = if whole { bytes.to_vec() } else { held };
            return Ok(Read::More);
        };
        self.part = Part::Done;
        let head = &text[begin..end];
        if !cut && is_regular(head) {
            return Ok(if whole && begin == 0 {
                Read::Same
            } else {
                Read::Instead(text[begin..].to_vec())
            });
        }
        let rewritten = rewrite(head, cut, self.bounds.kept);
        let rest = if rewritten.ends { Vec::new() } else { text[end..].to_vec() };
        Ok(Read::Rewritten(rewritten, rest))
    }

    /// Looks for the end of the final head, line by line.
    fn find(&mut self, text: &[u8], watch: &Watch) -> Result<Option<Found>, Fault> {
        loop {
            let length = text[self.looked..].iter().position(|byte| *byte == b'\n');
            let end = length.map_or(text.len(), |length| self.looked + length + 1);
            if self.part == Part::Status {
                // Also before the line is complete: a server with another protocol may send nothing
                // more.
                status(without_end(&text[self.line..end]))?;
            }
            if end > self.bounds.bytes {
                return match self.part {
                    Part::Final { begin } => Ok(Some(Found { begin, end: self.line, cut: true })),
                    _ => Err(Fault::Head),
                };
            }
            if length.is_none() {
                self.looked = end;
                return Ok(None);
            }
            let begin = std::mem::replace(&mut self.line, end);
            self.looked = end;
            let line = without_end(&text[begin..end]);
            self.part = match self.part {
                Part::Status if line.is_empty() => Part::Status,
                Part::Status => self.begun(begin, line, watch)?,
                Part::Interim if line.is_empty() => Part::Status,
                Part::Final { begin } if line.is_empty() => {
                    return Ok(Some(Found { begin, end, cut: false }));
                }
                place => place,
            };
        }
    }

    /// Handles the first line of a response.
    fn begun(&mut self, begin: usize, line: &[u8], watch: &Watch) -> Result<Part, Fault> {
        match status(line)?.ok_or(Fault::NotHttp)? {
            101 => Err(Fault::Switched),
            100..200 => {
                self.interim = self.interim.checked_sub(1).ok_or(Fault::Interim)?;
                Ok(Part::Interim)
            }
            status => {
                watch.has_status(status);
                Ok(Part::Final { begin })
            }
        }
    }
}

#[cfg(test)]
mod tests;
