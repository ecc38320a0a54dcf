//! The limits that all streams of a process share.

use outrider_model::{Error, Result};
use outrider_shares::{Holder, Resource, Share, Shares};
use tokio_util::sync::CancellationToken;

use crate::options::Options;

const STREAMS: Resource = Resource { name: "event-streams", noun: "streams of events", least: 1 };
const BYTES: Resource =
    Resource { name: "event-stream-bytes", noun: "bytes of streams of events", least: 1 };

/// The streams of a process.
pub struct Streams {
    open: Shares,
    /// Bytes of events that are read and not decided. A message is read as a whole, so each stream
    /// may exceed its share by one message.
    pub(super) buffer: Shares,
    pub(super) shutdown: CancellationToken,
}

impl Streams {
    pub fn new(options: &Options, shutdown: CancellationToken) -> Self {
        let open = Shares::new(STREAMS, options.max_streams);
        let buffer = Shares::new(BYTES, options.stream_buffer_bytes);
        Self { open, buffer, shutdown }
    }

    pub(super) fn enter(&self, holder: Holder) -> Result<Share> {
        if self.shutdown.is_cancelled() {
            return Err(Error::shutting_down());
        }
        Ok(self.open.take(holder, 1)?)
    }
}
