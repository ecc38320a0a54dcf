//! The head of an answer, read before the HTTP library reads it: leniently, but strictly in what
//! tells where the answer ends.
//!
//! The library refuses an answer for a folded line or a header field too many, although its status
//! was clear. So [`Reader`] finds the head of each exchange's final answer. A head that is regular
//! goes on as it came. For any other, the library gets one that `rewrite` makes of it.

use super::{
    regular::is_regular,
    rewrite::{Rewritten, rewrite},
    syntax::{status, without_end},
};
use crate::{
    exchange::{answer_bounds::HeadBounds, stream::Watch},
    fault::Fault,
};

/// What the HTTP library is to read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// Nothing yet: the head is not whole.
    More,
    /// The bytes as they came.
    Same,
    /// These bytes instead of all that came.
    Instead(Vec<u8>),
    /// A head of our own, and then these bytes.
    Rewritten(Rewritten, Vec<u8>),
}

/// Reads the bytes of one exchange until the head of its final answer has come.
#[derive(Debug)]
pub(crate) struct Reader {
    bounds: HeadBounds,
    part: Part,
    interim: usize,
    /// What came and was not passed on.
    held: Vec<u8>,
    /// Where the line under way begins, and how far it was looked at.
    line: usize,
    looked: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Before or in a status line.
    Status,
    /// In the fields of an interim answer.
    Interim,
    /// In the fields of the final answer, whose head began there.
    Final { begin: usize },
    /// After its head.
    Done,
}

/// Where the final head lies.
struct Found {
    begin: usize,
    end: usize,
    /// It is larger than what is read of one.
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

    /// Reads the next bytes, and tells the watch the status as soon as its line has come.
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
                // Before the line is whole too: who speaks another protocol may say no more.
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

    /// An answer has begun with this line.
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
