//! Reads the bytes of one protobuf message, in pieces of any size, and counts the entries of its
//! lists and maps. It keeps none of the bytes.

use outrider_model::{Error, Result};

use super::{
    items::too_many,
    layout::{
        COUNTERS, Counted, DELIMITED, EIGHT_BYTES, FOUR_BYTES, Holds, LAYOUTS, Layout, VARINT,
    },
};
use crate::wire::request_errors::malformed_protobuf;

/// Estimated size of a message in memory without its texts, in bytes.
const MESSAGE: usize = 320;
/// Estimated size of an entry of a map or list in memory, in bytes.
const ENTRY: usize = 192;

/// Maximum nesting of messages, which is also prost's limit.
const MAX_DEPTH: usize = 100;

/// A partly read message.
pub(super) struct Scan {
    /// The messages that enclose the current position, outermost first.
    open: Vec<Open>,
    step: Step,
    varint: Varint,
    /// Number of bytes read.
    at: u64,
    /// Estimated memory for the decoded message so far, without texts and payloads.
    memory: usize,
}

struct Open {
    layout: usize,
    /// Position after its last byte.
    end: u64,
    /// Index in `open` of the message that counts its lists: itself, or the enclosing message that
    /// it is a single part of, so that the counts outlive it.
    scope: usize,
    counts: [u32; COUNTERS],
    /// Its field in the enclosing message, and its index if that field is a list.
    place: (usize, Option<u32>),
}

#[derive(Clone, Copy)]
enum Step {
    /// The number and the type of a field.
    Tag,
    /// A number that is ignored.
    Number,
    /// The length of a field, which may be in the layout.
    Length(Option<usize>),
    /// Bytes that are ignored.
    Skip(u64),
    /// Bytes of packed numbers of a field.
    Packed(u64, usize),
}

#[derive(Default)]
struct Varint {
    value: u64,
    shift: u32,
}

impl Varint {
    /// Returns the number if this byte is its last.
    fn push(&mut self, byte: u8) -> Result<Option<u64>> {
        // Ten bytes hold 70 bits.
        if self.shift == 63 && byte > 1 {
            return Err(malformed_protobuf());
        }
        self.value |= u64::from(byte & 0x7f) << self.shift;
        self.shift += 7;
        Ok((byte < 0x80).then(|| std::mem::take(self).value))
    }
}

impl Scan {
    /// Starts a message with this layout and length.
    pub(super) fn new(layout: usize, length: u64) -> Self {
        let open = Open { layout, end: length, scope: 0, counts: [0; COUNTERS], place: (0, None) };
        let mut scan = Self {
            open: Vec::with_capacity(4),
            step: Step::Tag,
            varint: Varint::default(),
            at: 0,
            memory: MESSAGE,
        };
        scan.open.push(open);
        scan.close();
        scan
    }

    /// Reads the next bytes of the message. Fails if a list or map has too many entries, or if the
    /// bytes are not a message.
    pub(super) fn push(&mut self, mut data: &[u8]) -> Result<()> {
        while let Some((byte, rest)) = data.split_first() {
            match self.step {
                Step::Skip(left) => {
                    let (passed, left) = self.pass(data, left);
                    self.step = if left == 0 { Step::Tag } else { Step::Skip(left) };
                    data = &data[passed..];
                }
                Step::Packed(left, field) => {
                    let (passed, left) = self.pass(data, left);
                    let ends = data[..passed].iter().filter(|byte| **byte < 0x80).count();
                    self.count(field, u32::try_from(ends).unwrap_or(u32::MAX))?;
                    self.step = if left == 0 { Step::Tag } else { Step::Packed(left, field) };
                    data = &data[passed..];
                }
                step => {
                    data = rest;
                    self.at += 1;
                    if let Some(value) = self.varint.push(*byte)? {
                        self.number(step, value)?;
                    }
                }
            }
            self.close();
        }
        Ok(())
    }

    /// Ends the message. Fails if it ends in the middle of a field.
    pub(super) fn end(&self) -> Result<()> {
        if self.open.is_empty() { Ok(()) } else { Err(malformed_protobuf()) }
    }

    /// Returns the estimated memory of the decoded message so far, in bytes, without texts and
    /// payloads.
    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    fn pass(&mut self, data: &[u8], left: u64) -> (usize, u64) {
        let passed = usize::try_from(left).map_or(data.len(), |left| left.min(data.len()));
        self.at += passed as u64;
        (passed, left - passed as u64)
    }

    /// Closes the messages that end at the current position.
    fn close(&mut self) {
        if matches!(self.step, Step::Tag) && self.varint.shift == 0 {
            while self.open.last().is_some_and(|open| open.end == self.at) {
                self.open.pop();
            }
        }
    }

    fn layout(&self) -> Option<&'static Layout> {
        LAYOUTS.all.get(self.open.last()?.layout)
    }

    /// Handles a complete number.
    fn number(&mut self, step: Step, value: u64) -> Result<()> {
        self.step = match step {
            Step::Tag => self.tag(value)?,
            Step::Length(field) => self.delimited(field, value)?,
            _ => Step::Tag,
        };
        if let Step::Skip(0) | Step::Packed(0, _) = self.step {
            self.step = Step::Tag;
        }
        let end = self.open.last().map_or(0, |open| open.end);
        if self.at > end { Err(malformed_protobuf()) } else { Ok(()) }
    }

    fn tag(&mut self, tag: u64) -> Result<Step> {
        let number = u32::try_from(tag).map_err(|_| malformed_protobuf())? >> 3;
        if number == 0 {
            return Err(malformed_protobuf());
        }
        let wire_type = tag & 7;
        let field = self
            .layout()
            .and_then(|layout| layout.fields.iter().position(|field| field.number == number));
        if let Some(field) = field {
            self.begin(field, wire_type)?;
        }
        match wire_type {
            VARINT => Ok(Step::Number),
            EIGHT_BYTES => self.skip(8),
            DELIMITED => Ok(Step::Length(field)),
            FOUR_BYTES => self.skip(4),
            // Groups exist in proto2 only.
            _ => Err(malformed_protobuf()),
        }
    }

    /// Starts a field of the layout.
    fn begin(&mut self, index: usize, wire_type: u64) -> Result<()> {
        let Some(field) = self.layout().and_then(|layout| layout.fields.get(index)) else {
            return Ok(());
        };
        if !field.holds.takes(wire_type) {
            return Err(malformed_protobuf());
        }
        if let Some(counts) = self.counts() {
            for dropped in &field.clears {
                counts[dropped.clone()].fill(0);
            }
        }
        if wire_type == VARINT { self.count(index, 1) } else { Ok(()) }
    }

    /// Returns the counters of the current message.
    fn counts(&mut self) -> Option<&mut [u32; COUNTERS]> {
        let scope = self.open.last()?.scope;
        self.open.get_mut(scope).map(|open| &mut open.counts)
    }

    fn skip(&self, length: u64) -> Result<Step> {
        let end = self.open.last().map_or(0, |open| open.end);
        if end - self.at.min(end) >= length {
            Ok(Step::Skip(length))
        } else {
            Err(malformed_protobuf())
        }
    }

    fn delimited(&mut self, field: Option<usize>, length: u64) -> Result<Step> {
        let skip = self.skip(length)?;
        let Some(index) = field else { return Ok(skip) };
        let Some(holds) =
            self.layout().and_then(|layout| layout.fields.get(index)).map(|field| field.holds)
        else {
            return Ok(skip);
        };
        let scope = self.open.last().map_or(0, |open| open.scope);
        let (layout, scope, item) = match holds {
            Holds::Nothing => return Ok(skip),
            Holds::Numbers(_) => return Ok(Step::Packed(length, index)),
            Holds::Items(_) => {
                self.count(index, 1)?;
                return Ok(skip);
            }
            Holds::Message(layout) => (layout, scope, None),
            Holds::Messages(layout, Counted { counter, .. }) => {
                let before = self.counts().map(|counts| counts[counter]);
                self.count(index, 1)?;
                (layout, self.open.len(), before)
            }
        };
        if self.open.len() >= MAX_DEPTH {
            return Err(malformed_protobuf());
        }
        self.memory += MESSAGE;
        self.open.push(Open {
            layout,
            end: self.at + length,
            scope,
            counts: [0; COUNTERS],
            place: (index, item),
        });
        Ok(Step::Tag)
    }

    /// Adds entries of a field to its counter.
    fn count(&mut self, index: usize, entries: u32) -> Result<()> {
        let Some(field) = self.layout().and_then(|layout| layout.fields.get(index)) else {
            return Ok(());
        };
        let (Holds::Messages(_, counted) | Holds::Numbers(counted) | Holds::Items(counted)) =
            field.holds
        else {
            return Ok(());
        };
        let Some(counts) = self.counts() else { return Ok(()) };
        let count = &mut counts[counted.counter];
        *count = count.saturating_add(entries);
        if *count <= counted.most {
            self.memory += if let Holds::Items(_) = field.holds { ENTRY } else { 0 };
            return Ok(());
        }
        Err(Error::field(self.path(&field.name), too_many(counted.most)))
    }

    /// Returns the path of a field from the request.
    fn path(&self, name: &str) -> String {
        let mut path = String::new();
        for pair in self.open.windows(2) {
            let [around, inner] = pair else { continue };
            let (field, index) = inner.place;
            path.push_str(
                LAYOUTS
                    .all
                    .get(around.layout)
                    .and_then(|layout| layout.fields.get(field))
                    .map_or("", |field| &field.name),
            );
            if let Some(index) = index {
                path.push_str(&format!("[{index}]"));
            }
            path.push('.');
        }
        path + name
    }
}
