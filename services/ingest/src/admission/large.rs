//! Turns of large requests. The processor time that they take is missing for small ones, so only a
//! few are validated and committed at once, and callers take turns.

use outrider_model::Result;
use outrider_shares::{Holder, Resource, Turn, TurnResources, Turns};

use crate::options::Options;

const RESOURCES: TurnResources = TurnResources {
    slots: Resource { name: "large-requests", noun: "large publish requests", least: 1 },
    line: Resource {
        name: "large-requests-waiting",
        noun: "large publish requests that wait for their turn",
        least: 1,
    },
};

/// A request is large only if its payloads have more bytes than this on average. With smaller
/// payloads, the fixed cost of an event dominates, and events take turns in commits.
const LARGE_EVENT: usize = 16 * 1024;

/// The turns of large requests. A handle that is cheap to clone.
#[derive(Clone)]
pub struct Large {
    turns: Turns,
    bytes: usize,
}

impl Large {
    pub fn new(options: &Options) -> Self {
        let turns = Turns::new(RESOURCES, options.large_requests, options.large_requests_waiting);
        Self { turns, bytes: options.large_bytes }
    }

    /// Whether this many events with this many bytes of payloads are large together.
    pub fn is_large(&self, bytes: usize, events: usize) -> bool {
        bytes > self.bytes && bytes / LARGE_EVENT > events
    }

    /// Returns how many requests have their turn, and how many wait.
    #[cfg(test)]
    pub fn held(&self) -> (usize, usize) {
        self.turns.held()
    }

    /// Returns the turn of a request. Refuses if too many wait.
    pub async fn take(&self, holder: Holder) -> Result<Turn> {
        Ok(self.turns.take(holder).await?)
    }

    /// Returns the turn of a batch of a stream. Never refuses, because streams themselves are
    /// bounded and divided.
    pub async fn wait(&self, holder: Holder) -> Turn {
        self.turns.wait(holder).await
    }
}
