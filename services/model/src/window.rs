//! Slow start: how many requests an endpoint may have in flight, depending on its recent responses.
//!
//! The window of an unknown endpoint has an initial size. It grows by one with each 2xx response,
//! so it doubles with each window of responses, up to the endpoint's own limit. Each request that
//! is not answered in time halves it, down to a minimum. A window also remembers which of the two
//! came last. This is soft state: forgetting a window only loses what was learned about its
//! endpoint.

use std::{collections::HashMap, time::Duration};

use crate::{EndpointId, Timestamp};

/// What a request showed about its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The endpoint returned a 2xx response.
    Answered,
    /// The endpoint returned no complete response in time.
    Nothing,
}

/// The rules of windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowRules {
    /// The size of the window of an unknown endpoint.
    pub initial: u32,
    /// Minimum size after timeouts, at least 1.
    pub least: u32,
    /// Maximum number of remembered windows.
    pub capacity: usize,
    /// How long an unchanged window is remembered; up to twice as long.
    pub memory: Duration,
}

/// The windows of endpoints. An endpoint is forgotten after `capacity / 2` other endpoints were
/// active and it was not, or after a whole `memory`.
#[derive(Debug)]
pub struct Windows {
    rules: WindowRules,
    recent: HashMap<EndpointId, Known>,
    older: HashMap<EndpointId, Known>,
    turned_at: Timestamp,
}

/// The state of one endpoint.
#[derive(Debug, Clone, Copy)]
struct Known {
    size: u32,
    last: Heard,
}

impl Windows {
    /// Creates an empty collection.
    #[must_use]
    pub fn new(rules: WindowRules) -> Self {
        Self { rules, recent: HashMap::new(), older: HashMap::new(), turned_at: Timestamp(0) }
    }

    /// Returns the size of the window of an endpoint.
    #[must_use]
    pub fn size(&self, endpoint: EndpointId) -> u32 {
        self.known(endpoint).map_or(self.rules.initial, |known| known.size)
    }

    /// Whether a 2xx response came after the last timeout of the endpoint.
    #[must_use]
    pub fn answers(&self, endpoint: EndpointId) -> bool {
        self.known(endpoint).is_some_and(|known| known.last == Heard::Answered)
    }

    fn known(&self, endpoint: EndpointId) -> Option<&Known> {
        self.recent.get(&endpoint).or_else(|| self.older.get(&endpoint))
    }

    /// Changes the window of an endpoint, which accepts at most `most` requests.
    pub fn hear(&mut self, endpoint: EndpointId, heard: Heard, most: u32, now: Timestamp) {
        self.turn(now);
        // If the limit of the endpoint was lowered, the window shrinks to it.
        let size = self.size(endpoint).min(most);
        let changed = match heard {
            Heard::Answered => size.saturating_add(1).min(most),
            Heard::Nothing => (size / 2).max(self.rules.least),
        };
        self.recent.insert(endpoint, Known { size: changed.max(1), last: heard });
    }

    /// Whether the endpoint has a window.
    #[must_use]
    pub fn knows(&self, endpoint: EndpointId) -> bool {
        self.known(endpoint).is_some()
    }

    /// Forgets the window of an endpoint.
    pub fn forget(&mut self, endpoint: EndpointId) {
        self.recent.remove(&endpoint);
        self.older.remove(&endpoint);
    }

    fn turn(&mut self, now: Timestamp) {
        let full = self.recent.len() >= self.rules.capacity.div_ceil(2);
        if full || now.since(self.turned_at) >= self.rules.memory {
            self.older = std::mem::take(&mut self.recent);
            self.turned_at = now;
        }
    }

    /// Returns the number of windows, and the number of those smaller than the initial size.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        let older = self.older.iter().filter(|(endpoint, _)| !self.recent.contains_key(endpoint));
        let known = self.recent.iter().chain(older);
        known.fold((0, 0), |(all, narrow), (_, known)| {
            (all + 1, narrow + usize::from(known.size < self.rules.initial))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: WindowRules =
        WindowRules { initial: 8, least: 1, capacity: 10, memory: Duration::from_secs(60) };
    const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

    fn endpoint(number: u64) -> EndpointId {
        EndpointId::new(Timestamp(0), number)
    }

    #[test]
    fn a_window_of_answers_doubles_it_up_to_the_limit_and_a_timeout_halves_it() {
        let mut windows = Windows::new(RULES);
        for expected in [16, 32, 64, 64] {
            for _ in 0..windows.size(endpoint(1)) {
                windows.hear(endpoint(1), Heard::Answered, 64, NOW);
            }
            assert_eq!(windows.size(endpoint(1)), expected);
        }
        for expected in [32, 16, 8, 4, 2, 1, 1] {
            windows.hear(endpoint(1), Heard::Nothing, 64, NOW);
            assert_eq!(windows.size(endpoint(1)), expected);
        }
        assert_eq!((windows.size(endpoint(2)), windows.count()), (8, (1, 1)));
        assert!(!windows.answers(endpoint(1)) && !windows.answers(endpoint(2)));
        windows.hear(endpoint(2), Heard::Answered, 3, NOW);
        assert!(windows.answers(endpoint(2)));
        assert_eq!(windows.size(endpoint(2)), 3, "a lower limit counts at once");
    }

    #[test]
    fn a_window_that_begins_at_the_limit_shrinks_to_the_least_and_grows_back() {
        let mut windows = Windows::new(WindowRules { initial: u32::MAX, least: 8, ..RULES });
        for expected in [32, 16, 8, 8] {
            windows.hear(endpoint(1), Heard::Nothing, 64, NOW);
            assert_eq!(windows.size(endpoint(1)), expected);
        }
        windows.hear(endpoint(1), Heard::Answered, 64, NOW);
        assert_eq!((windows.size(endpoint(1)), windows.size(endpoint(2))), (9, u32::MAX));
    }

    #[test]
    fn memory_is_bounded_in_number_and_time() {
        let mut windows = Windows::new(RULES);
        for number in 0..1_000 {
            windows.hear(endpoint(number), Heard::Nothing, 64, NOW);
            assert!(windows.count().0 <= 10);
        }
        assert_eq!((windows.size(endpoint(999)), windows.size(endpoint(1))), (4, 8));
        let mut windows = Windows::new(RULES);
        windows.hear(endpoint(1), Heard::Nothing, 64, NOW);
        for minutes in 1..3 {
            assert_eq!(windows.size(endpoint(1)), 4);
            windows.hear(endpoint(2), Heard::Nothing, 64, NOW.plus(RULES.memory * minutes));
        }
        assert_eq!(windows.size(endpoint(1)), 8, "nothing was heard of it for the whole time");
    }
}
