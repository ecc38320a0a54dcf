//! The room that calls hold until their events are committed. All callers share it.

use outrider_model::Result;
use outrider_shares::{Holder, Resource, Share, Shares};
use outrider_store::NewEvent;

const CALLS: Resource =
    Resource { name: "accept-calls", noun: "publish requests that wait for a commit", least: 1 };
const BYTES: Resource = Resource {
    name: "accept-bytes",
    noun: "bytes of events and deliveries that wait for a commit",
    // Enough for an event of usual size with a few deliveries.
    least: 64 * 1024,
};

/// The bytes that count for an event, and for a delivery, in addition to its payload or headers.
pub const FIXED_BYTES: usize = 1024;

/// Returns the bytes of the headers. Each job has a copy of them.
pub fn headers_of(new: &NewEvent) -> usize {
    new.event.headers.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// The part of the shared room that a call holds.
pub struct CallRoom {
    bytes: Share,
    _call: Share,
}

/// The room that calls share.
pub struct Room {
    calls: Shares,
    bytes: Shares,
    /// The most bytes that count for a single call, so that a larger one can also find room.
    most_of_a_call: usize,
}

impl Room {
    pub fn new(calls: usize, bytes: usize) -> Self {
        let (calls, bytes) = (Shares::new(CALLS, calls), Shares::new(BYTES, bytes));
        let most_of_a_call = bytes.most() / 2;
        Self { calls, bytes, most_of_a_call }
    }

    /// Takes a place for a call, without any bytes yet.
    pub fn enter(&self, holder: Holder) -> Result<CallRoom> {
        Ok(CallRoom { _call: self.calls.take(holder, 1)?, bytes: self.bytes.share(holder) })
    }

    /// Takes more bytes for a call: those of payloads, or of deliveries, each of which has a row
    /// and a job with a copy of the headers.
    pub fn take(&self, room: &mut CallRoom, bytes: usize) -> Result<()> {
        let left = self.most_of_a_call.saturating_sub(room.bytes.amount());
        Ok(room.bytes.grow(bytes.min(left))?)
    }
}
