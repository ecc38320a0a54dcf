//! The body of a public call, scanned while it passes.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use outrider_model::Result;
use tonic::{Status, body::Body};

use super::{SHAPES, scan::Scan};
use crate::to_status;

/// A flag for compression, and the length in four bytes.
const PREFIX_BYTES: usize = 5;

/// The messages of a public method on their way to be decoded. Ends with an error as soon as one
/// has too many entries.
pub struct Bounded {
    inner: Body,
    messages: Messages,
}

impl Bounded {
    /// The body of a call of the method at this path, or the same when it is no public one.
    #[must_use]
    pub fn of(path: &str, body: Body) -> Body {
        match SHAPES.by_path.get(path) {
            Some(shape) => Body::new(Self { inner: body, messages: Messages::of(*shape) }),
            None => body,
        }
    }
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
        let looked = frame.data_ref().map_or(Ok(()), |data| self.messages.push(data));
        Poll::Ready(Some(looked.map(|()| frame).map_err(to_status)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// What the one message of a call will take in memory, weighed while it passes.
pub struct Weight(Messages);

impl Weight {
    /// A smaller message weighs nothing: what it takes is in every connection's buffers anyway.
    const LEAST: usize = 16 * 1024;

    /// For a call of the method at this path; none when it is no public one.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        SHAPES
            .by_path
            .get(path)
            .map(|shape| Self(Messages { least: Self::LEAST, ..Messages::of(*shape) }))
    }

    /// These bytes pass: what the message takes beyond them so far, in bytes. Fails when it has too
    /// many entries or is none.
    pub fn push(&mut self, data: &[u8]) -> Result<usize> {
        self.0.push(data)?;
        Ok(self.0.memory.max(self.0.scan.as_ref().map_or(0, Scan::memory)))
    }
}

/// Messages of one shape, one after the other.
pub(super) struct Messages {
    shape: usize,
    prefix: [u8; PREFIX_BYTES],
    /// Bytes of the prefix that passed.
    begun: usize,
    /// Bytes of the message that are to come.
    left: usize,
    /// None of one that is compressed, which is not decoded either.
    scan: Option<Scan>,
    /// Smaller ones are not looked at.
    least: usize,
    /// What the last one took.
    memory: usize,
}

impl Messages {
    pub(super) fn of(shape: usize) -> Self {
        Self {
            shape,
            prefix: [0; PREFIX_BYTES],
            begun: 0,
            left: 0,
            scan: None,
            least: 0,
            memory: 0,
        }
    }

    pub(super) fn push(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            if self.begun < PREFIX_BYTES {
                let (prefix, rest) = data.split_at(data.len().min(PREFIX_BYTES - self.begun));
                self.prefix[self.begun..self.begun + prefix.len()].copy_from_slice(prefix);
                self.begun += prefix.len();
                data = rest;
                if self.begun == PREFIX_BYTES {
                    self.begin()?;
                }
            } else {
                let (part, rest) = data.split_at(data.len().min(self.left));
                self.left -= part.len();
                data = rest;
                self.scan.as_mut().map_or(Ok(()), |scan| scan.push(part))?;
                self.end_if_over()?;
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        let [flag, length @ ..] = self.prefix;
        let length = u32::from_be_bytes(length);
        self.left = usize::try_from(length).unwrap_or(usize::MAX);
        self.scan =
            (flag == 0 && self.left >= self.least).then(|| Scan::new(self.shape, length.into()));
        self.end_if_over()
    }

    fn end_if_over(&mut self) -> Result<()> {
        if self.left > 0 {
            return Ok(());
        }
        self.begun = 0;
        let Some(scan) = self.scan.take() else { return Ok(()) };
        self.memory = scan.memory();
        scan.end()
    }
}
