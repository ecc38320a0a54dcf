//! How many jobs of an endpoint go to the queue: as many as it may have in flight, or fewer while
//! it does not answer in time. The other deliveries wait in the database and use no part of the
//! queue.

use std::sync::{Mutex, MutexGuard, PoisonError};

use outrider_model::{Attempt, AttemptOutcome, Heard, Timestamp, WindowRules, Windows};
use outrider_store::EndpointEntry;

use crate::{jobs::JobEndpoint, options::Options};

/// The windows of endpoints in the queue, derived from the attempts that this process settled.
pub struct QueueWindows(Mutex<Windows>);

fn heard(attempt: &Attempt) -> Option<Heard> {
    match attempt.outcome {
        AttemptOutcome::Succeeded => Some(Heard::Answered),
        AttemptOutcome::TimedOut => Some(Heard::Nothing),
        _ => None,
    }
}

impl QueueWindows {
    pub fn new(options: &Options) -> Self {
        let rules = WindowRules {
            initial: u32::MAX,
            least: options.least_window,
            capacity: options.windows_kept,
            memory: options.window_memory,
        };
        Self(Mutex::new(Windows::new(rules)))
    }

    fn windows(&self) -> MutexGuard<'_, Windows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the data of this endpoint that its jobs need.
    pub fn endpoint(&self, entry: &EndpointEntry) -> JobEndpoint {
        let limit =
            entry.endpoint.spec.limits.max_in_flight.min(self.windows().size(entry.endpoint.id));
        JobEndpoint { organization: entry.organization, limit }
    }

    /// Whether an attempt changes a window. Nothing is remembered about endpoints that always
    /// answer, which most do.
    pub fn cares(&self, attempt: &Attempt) -> bool {
        match heard(attempt) {
            Some(Heard::Nothing) => true,
            Some(Heard::Answered) => self.windows().knows(attempt.endpoint),
            None => false,
        }
    }

    /// Updates the window after an attempt to an endpoint that takes at most `most` requests.
    pub fn learn(&self, attempt: &Attempt, most: u32, now: Timestamp) {
        let Some(heard) = heard(attempt) else { return };
        let mut windows = self.windows();
        windows.hear(attempt.endpoint, heard, most, now);
        if heard == Heard::Answered && windows.size(attempt.endpoint) >= most {
            windows.forget(attempt.endpoint);
        }
    }

    /// Returns the number of endpoints whose window is smaller than their limit.
    pub fn narrow(&self) -> usize {
        self.windows().count().1
    }
}
