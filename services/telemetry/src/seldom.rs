//! Limits log lines that a caller could otherwise cause at will.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Minimum time between two lines about the same thing.
const EVERY: Duration = Duration::from_secs(60);

/// Decides when to log something that may happen very often: at once, and then at most once a
/// minute, with the number of times since the last line.
pub struct Seldom(Mutex<State>);

struct State {
    told: Option<Instant>,
    times: u64,
}

impl Seldom {
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(State { told: None, times: 0 }))
    }

    /// Counts an occurrence. If a line is due, returns the number of occurrences since the last
    /// one.
    pub fn happened(&self) -> Option<u64> {
        self.happened_at(Instant::now())
    }

    fn happened_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.times += 1;
        if state.told.is_some_and(|told| now.saturating_duration_since(told) < EVERY) {
            return None;
        }
        state.told = Some(now);
        Some(std::mem::take(&mut state.times))
    }
}

impl Default for Seldom {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_a_minute_counts_what_was_left_unsaid() {
        let (seldom, start) = (Seldom::new(), Instant::now());
        let at = |seconds| seldom.happened_at(start + Duration::from_secs(seconds));
        assert_eq!(at(0), Some(1));
        assert_eq!([at(1), at(59)], [None, None]);
        assert_eq!(at(60), Some(3));
        assert_eq!(at(61), None);
        assert_eq!(at(500), Some(2));
    }
}
