//! The body of a public call, scanned as it is read.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use outrider_model::Result;
use tonic::{Status, body::Body};

use super::{layout::LAYOUTS, scan::Scan};
use crate::wire::status::to_status;

/// Length of the prefix of a gRPC message: a compression flag and four bytes of length.
const PREFIX_BYTES: usize = 5;

/// The request body of a public method. It ends with an error as soon as a message has too many
/// entries.
pub struct Bounded {
    inner: Body,
    messages: Messages,
}

impl Bounded {
    /// Bounds the body of a call to the method at this path. Returns the body unchanged if the
    /// method is not public.
    #[must_use]
    pub fn of(path: &str, body: Body) -> Body {
        match LAYOUTS.by_path.get(path) {
            Some(layout) => Body::new(Self { inner: body, messages: Messages::of(*layout) }),
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

/// Estimates the memory that the single message of a call will take, while the message is read.
pub struct Weight(Messages);

impl Weight {
    /// A smaller message counts as nothing, because it fits the buffers that each connection has.
    const LEAST: usize = 16 * 1024;

    /// For a call to the method at this path. Returns `None` if the method is not public.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        LAYOUTS
            .by_path
            .get(path)
            .map(|layout| Self(Messages { least: Self::LEAST, ..Messages::of(*layout) }))
    }

    /// Reads the next bytes. Returns the memory that the message takes so far, in bytes, in
    /// addition to its encoded bytes. Fails if it has too many entries or is not a message.
    pub fn push(&mut self, data: &[u8]) -> Result<usize> {
        self.0.push(data)?;
        Ok(self.0.memory.max(self.0.scan.as_ref().map_or(0, Scan::memory)))
    }
}

/// Consecutive messages of one layout.
pub(super) struct Messages {
    layout: usize,
    prefix: [u8; PREFIX_BYTES],
    /// Number of bytes of the prefix that were read.
    begun: usize,
    /// Number of bytes of the message that are still missing.
    left: usize,
    /// `None` for a compressed message, which is not decoded either.
    scan: Option<Scan>,
    /// Smaller messages are not scanned.
    least: usize,
    /// Memory of the last message.
    memory: usize,
}

impl Messages {
    pub(super) fn of(layout: usize) -> Self {
        Self {
            layout,
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
            (flag == 0 && self.left >= self.least).then(|| Scan::new(self.layout, length.into()));
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
