//! What calls hold of what all callers share, until their events are committed.

use outrider_model::Result;
use outrider_shares::{Holder, Resource, Share, Shares};
use outrider_store::NewEvent;

const CALLS: Resource =
    Resource { name: "accept-calls", noun: "publish requests that wait for a commit", least: 1 };
const BYTES: Resource = Resource {
    name: "accept-bytes",
    noun: "bytes of events and deliveries that wait for a commit",
    // An event of usual size with a few deliveries.
    least: 64 * 1024,
};

/// What an event, and what a delivery, is counted with beside its payload or headers.
pub const FIXED_BYTES: usize = 1024;

/// Bytes of headers, of which each job has a copy.
pub fn headers_of(new: &NewEvent) -> usize {
    new.event.headers.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// What a call holds of what all callers share.
pub struct CallRoom {
    bytes: Share,
    _call: Share,
}

/// The room that calls share.
pub struct Room {
    calls: Shares,
    bytes: Shares,
    /// Bytes that a single call is counted with at most: a larger one must find room some time.
    most_of_a_call: usize,
}

impl Room {
    pub fn new(calls: usize, bytes: usize) -> Self {
        let (calls, bytes) = (Shares::new(CALLS, calls), Shares::new(BYTES, bytes));
        let most_of_a_call = bytes.most() / 2;
        Self { calls, bytes, most_of_a_call }
    }

    /// The room of a call that its holder has nothing of yet but the place.
    pub fn enter(&self, holder: Holder) -> Result<CallRoom> {
        Ok(CallRoom { _call: self.calls.take(holder, 1)?, bytes: self.bytes.share(holder) })
    }

    /// More memory for a call: so many bytes of payloads, or of deliveries, each of which has a row
    /// and a job with a copy of the headers.
    pub fn take(&self, room: &mut CallRoom, bytes: usize) -> Result<()> {
        let left = self.most_of_a_call.saturating_sub(room.bytes.amount());
        Ok(room.bytes.grow(bytes.min(left))?)
    }
}
