//! Reads along the bytes of one protobuf message, however they are cut, and counts the entries of
//! its lists and maps. Keeps none of them.

use outrider_model::{Error, Reason, Result};

use super::{
    COUNTERS, Counted, DELIMITED, EIGHT_BYTES, FOUR_BYTES, Holds, SHAPES, Shape, VARINT, too_many,
};

/// A message in memory, in bytes, without its texts.
const MESSAGE: usize = 320;
/// An entry of a map or list.
const ENTRY: usize = 192;

/// Messages within messages; prost takes no more.
const MAX_DEPTH: usize = 100;

/// A message under way.
pub(super) struct Scan {
    /// The message itself and those around the place, the outermost first.
    open: Vec<Open>,
    step: Step,
    varint: Varint,
    /// Bytes that passed.
    at: u64,
    /// About what is allocated for what was seen, texts and payloads aside.
    memory: usize,
}

struct Open {
    shape: usize,
    /// The byte after its last.
    end: u64,
    /// The place of the message whose counts are those of its lists: its own, or that of the one
    /// around it of which it is a part, so that the counts outlive it.
    scope: usize,
    counts: [u32; COUNTERS],
    /// The field in the message around it, and the index there in a list.
    place: (usize, Option<u32>),
}

#[derive(Clone, Copy)]
enum Step {
    /// A field's number and type.
    Tag,
    /// A number that means nothing here.
    Number,
    /// The length of a field, which may be one that is known.
    Length(Option<usize>),
    /// Bytes that mean nothing here.
    Skip(u64),
    /// Bytes of packed numbers.
    Packed(u64, usize),
}

#[derive(Default)]
struct Varint {
    value: u64,
    shift: u32,
}

impl Varint {
    /// The number, when this byte is its last one.
    fn push(&mut self, byte: u8) -> Result<Option<u64>> {
        // Ten bytes hold 70 bits.
        if self.shift == 63 && byte > 1 {
            return Err(malformed());
        }
        self.value |= u64::from(byte & 0x7f) << self.shift;
        self.shift += 7;
        Ok((byte < 0x80).then(|| std::mem::take(self).value))
    }
}

/// What is said of a message that is none.
pub(crate) const MALFORMED: &str = "the message is not well-formed protobuf";

fn malformed() -> Error {
    Error::new(Reason::MalformedRequest, MALFORMED)
}

impl Scan {
    /// Of a message of this shape and length.
    pub(super) fn new(shape: usize, length: u64) -> Self {
        let open = Open { shape, end: length, scope: 0, counts: [0; COUNTERS], place: (0, None) };
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

    /// The next bytes of the message. Fails when a list or map has too many entries, or when it is
    /// no message.
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

    /// The message has ended. Fails when it ends in the middle of a field.
    pub(super) fn end(&self) -> Result<()> {
        if self.open.is_empty() { Ok(()) } else { Err(malformed()) }
    }

    /// About what the message takes in memory so far, in bytes, texts and payloads aside.
    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    fn pass(&mut self, data: &[u8], left: u64) -> (usize, u64) {
        let passed = usize::try_from(left).map_or(data.len(), |left| left.min(data.len()));
        self.at += passed as u64;
        (passed, left - passed as u64)
    }

    /// Messages that end here.
    fn close(&mut self) {
        if matches!(self.step, Step::Tag) && self.varint.shift == 0 {
            while self.open.last().is_some_and(|open| open.end == self.at) {
                self.open.pop();
            }
        }
    }

    fn shape(&self) -> Option<&'static Shape> {
        SHAPES.all.get(self.open.last()?.shape)
    }

    /// A whole number is there.
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
        if self.at > end { Err(malformed()) } else { Ok(()) }
    }

    fn tag(&mut self, tag: u64) -> Result<Step> {
        let number = u32::try_from(tag).map_err(|_| malformed())? >> 3;
        if number == 0 {
            return Err(malformed());
        }
        let wire_type = tag & 7;
        let field = self
            .shape()
            .and_then(|shape| shape.fields.iter().position(|field| field.number == number));
        if let Some(field) = field {
            self.begin(field, wire_type)?;
        }
        match wire_type {
            VARINT => Ok(Step::Number),
            EIGHT_BYTES => self.skip(8),
            DELIMITED => Ok(Step::Length(field)),
            FOUR_BYTES => self.skip(4),
            // Groups went with proto2.
            _ => Err(malformed()),
        }
    }

    /// A field of the shape comes.
    fn begin(&mut self, index: usize, wire_type: u64) -> Result<()> {
        let Some(field) = self.shape().and_then(|shape| shape.fields.get(index)) else {
            return Ok(());
        };
        if !field.holds.takes(wire_type) {
            return Err(malformed());
        }
        if let Some(counts) = self.counts() {
            for dropped in &field.clears {
                counts[dropped.clone()].fill(0);
            }
        }
        if wire_type == VARINT { self.count(index, 1) } else { Ok(()) }
    }

    /// The counters of the message at this place.
    fn counts(&mut self) -> Option<&mut [u32; COUNTERS]> {
        let scope = self.open.last()?.scope;
        self.open.get_mut(scope).map(|open| &mut open.counts)
    }

    fn skip(&self, length: u64) -> Result<Step> {
        let end = self.open.last().map_or(0, |open| open.end);
        if end - self.at.min(end) >= length { Ok(Step::Skip(length)) } else { Err(malformed()) }
    }

    fn delimited(&mut self, field: Option<usize>, length: u64) -> Result<Step> {
        let skip = self.skip(length)?;
        let Some(index) = field else { return Ok(skip) };
        let Some(holds) =
            self.shape().and_then(|shape| shape.fields.get(index)).map(|field| field.holds)
        else {
            return Ok(skip);
        };
        let scope = self.open.last().map_or(0, |open| open.scope);
        let (shape, scope, item) = match holds {
            Holds::Nothing => return Ok(skip),
            Holds::Numbers(_) => return Ok(Step::Packed(length, index)),
            Holds::Items(_) => {
                self.count(index, 1)?;
                return Ok(skip);
            }
            Holds::Message(shape) => (shape, scope, None),
            Holds::Messages(shape, Counted { counter, .. }) => {
                let before = self.counts().map(|counts| counts[counter]);
                self.count(index, 1)?;
                (shape, self.open.len(), before)
            }
        };
        if self.open.len() >= MAX_DEPTH {
            return Err(malformed());
        }
        self.memory += MESSAGE;
        self.open.push(Open {
            shape,
            end: self.at + length,
            scope,
            counts: [0; COUNTERS],
            place: (index, item),
        });
        Ok(Step::Tag)
    }

    /// Entries of a field.
    fn count(&mut self, index: usize, entries: u32) -> Result<()> {
        let Some(field) = self.shape().and_then(|shape| shape.fields.get(index)) else {
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

    /// Where a field is, from the request on.
    fn path(&self, name: &str) -> String {
        let mut path = String::new();
        for pair in self.open.windows(2) {
            let [around, inner] = pair else { continue };
            let (field, index) = inner.place;
            path.push_str(
                SHAPES
                    .all
                    .get(around.shape)
                    .and_then(|shape| shape.fields.get(field))
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
