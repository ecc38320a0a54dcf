//! Turns of large requests. What they take of the processors is not there for small ones, so only a
//! few are validated and committed at once, and callers take turns.

use outrider_model::Result;
use outrider_shares::{Holder, Resource, Turn, TurnResources, Turns};

use crate::Options;

const GATE: TurnResources = TurnResources {
    slots: Resource { name: "large-requests", noun: "large publish requests", least: 1 },
    line: Resource {
        name: "large-requests-waiting",
        noun: "large publish requests that wait for their turn",
        least: 1,
    },
};

/// A request is large only if its payloads have more bytes than this on average: beside smaller
/// ones, what an event takes for itself counts more, and events take turns in commits.
const LARGE_EVENT: usize = 16 * 1024;

/// The turns, and what needs one. A cheap handle.
#[derive(Clone)]
pub struct Large {
    turns: Turns,
    bytes: usize,
}

impl Large {
    pub fn new(options: &Options) -> Self {
        let turns = Turns::new(GATE, options.large_requests, options.large_requests_waiting);
        Self { turns, bytes: options.large_bytes }
    }

    /// Whether events with so many bytes of payloads are large together.
    pub fn is_large(&self, bytes: usize, events: usize) -> bool {
        bytes > self.bytes && bytes / LARGE_EVENT > events
    }

    /// How many have their turn, and how many wait for it.
    #[cfg(test)]
    pub fn held(&self) -> (usize, usize) {
        self.turns.held()
    }

    /// The turn of a request. Refused when too many wait.
    pub async fn take(&self, holder: Holder) -> Result<Turn> {
        Ok(self.turns.take(holder).await?)
    }

    /// The turn of a batch of a stream. Never refused: streams are bounded and divided themselves.
    pub async fn wait(&self, holder: Holder) -> Turn {
        self.turns.wait(holder).await
    }
}
