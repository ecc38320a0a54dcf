//! Slow start: how many requests an endpoint may have under way, by what was heard of it lately.
//!
//! The window of an endpoint that has not answered lately is small. It grows by one with each 2xx
//! answer, and so doubles with each window of answers, up to the endpoint's own limit; it is halved
//! by each request that nobody answered in time. This is soft state: forgetting a window costs its
//! endpoint another slow start, nothing else.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use outrider_model::EndpointId;

/// What a request told of its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A 2xx answer; the endpoint takes at most this many requests.
    Answered { most: u32 },
    /// Nothing, or not all of an answer, within its time.
    Nothing,
}

/// The windows of endpoints. Bounded: an endpoint that was not heard of while `capacity / 2` others
/// were, or during a whole `memory`, is forgotten.
#[derive(Debug)]
pub(crate) struct Windows {
    initial: u32,
    capacity: usize,
    memory: Duration,
    recent: HashMap<EndpointId, u32>,
    older: HashMap<EndpointId, u32>,
    turned_at: Instant,
}

impl Windows {
    pub(crate) fn new(initial: u32, capacity: usize, memory: Duration) -> Self {
        let (recent, older) = (HashMap::new(), HashMap::new());
        Self { initial, capacity, memory, recent, older, turned_at: Instant::now() }
    }

    /// The window of an endpoint.
    pub(crate) fn size(&self, endpoint: EndpointId) -> u32 {
        let known = self.recent.get(&endpoint).or_else(|| self.older.get(&endpoint));
        known.copied().unwrap_or(self.initial)
    }

    /// Changes the window by what was heard.
    pub(crate) fn hear(&mut self, endpoint: EndpointId, heard: Heard) {
        self.turn();
        let size = self.size(endpoint);
        let changed = match heard {
            // An endpoint whose limit was lowered comes down to it.
            Heard::Answered { most } => size.saturating_add(1).min(most),
            Heard::Nothing => size / 2,
        };
        self.recent.insert(endpoint, changed.max(1));
    }

    fn turn(&mut self) {
        if self.recent.len() >= self.capacity.div_ceil(2) || self.turned_at.elapsed() >= self.memory {
            self.older = std::mem::take(&mut self.recent);
            self.turned_at = Instant::now();
        }
    }

    /// How many are known, and how many of them are smaller than the initial one.
    pub(crate) fn count(&self) -> (usize, usize) {
        let older = self.older.iter().filter(|(endpoint, _)| !self.recent.contains_key(endpoint));
        let sizes: Vec<u32> = self.recent.iter().chain(older).map(|(_, size)| *size).collect();
        (sizes.len(), sizes.iter().filter(|size| **size < self.initial).count())
    }
}

#[cfg(test)]
mod tests {
    use outrider_model::Timestamp;

    use super::*;

    fn endpoint(number: u64) -> EndpointId {
        EndpointId::new(Timestamp(0), number)
    }

    #[test]
    fn a_window_of_answers_doubles_it_up_to_the_limit_and_a_timeout_halves_it() {
        let mut windows = Windows::new(8, 10, Duration::from_secs(60));
        for expected in [16, 32, 64, 64] {
            for _ in 0..windows.size(endpoint(1)) {
                windows.hear(endpoint(1), Heard::Answered { most: 64 });
            }
            assert_eq!(windows.size(endpoint(1)), expected);
        }
        for expected in [32, 16, 8, 4, 2, 1, 1] {
            windows.hear(endpoint(1), Heard::Nothing);
            assert_eq!(windows.size(endpoint(1)), expected);
        }
        assert_eq!((windows.size(endpoint(2)), windows.count()), (8, (1, 1)));
        windows.hear(endpoint(2), Heard::Answered { most: 3 });
        assert_eq!(windows.size(endpoint(2)), 3, "a lower limit counts at once");
    }

    #[test]
    fn memory_is_bounded_in_number_and_time() {
        let mut windows = Windows::new(8, 10, Duration::from_secs(60));
        for number in 0..1_000 {
            windows.hear(endpoint(number), Heard::Nothing);
            assert!(windows.count().0 <= 10);
        }
        assert_eq!((windows.size(endpoint(999)), windows.size(endpoint(1))), (4, 8));
        let mut windows = Windows::new(8, 10, Duration::ZERO);
        windows.hear(endpoint(1), Heard::Nothing);
        windows.hear(endpoint(2), Heard::Nothing);
        assert_eq!(windows.size(endpoint(1)), 4);
        windows.hear(endpoint(2), Heard::Nothing);
        assert_eq!(windows.size(endpoint(1)), 8, "it was not heard of for the whole time");
    }
}
