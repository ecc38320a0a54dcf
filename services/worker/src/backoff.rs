//! Waits between tries, and limits log lines, so that many tasks with the same trouble neither
//! retry together nor all log it.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Waits with jitter that double from `first` to `most`.
pub(crate) struct Backoff {
    next: Duration,
    first: Duration,
    most: Duration,
}

impl Backoff {
    /// Waits from 100 ms to 5 s, for services that this process depends on.
    pub(crate) fn new() -> Self {
        Self::between(Duration::from_millis(100), Duration::from_secs(5))
    }

    pub(crate) fn between(first: Duration, most: Duration) -> Self {
        Self { next: first, first, most }
    }

    /// Returns the next wait: between half and the whole of a time that doubles with each call.
    pub(crate) fn step(&mut self) -> Duration {
        let span = self.next;
        self.next = (span * 2).min(self.most);
        span.mul_f64(0.5 + rand::random::<f64>() / 2.0)
    }

    /// Sleeps for the next wait.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.step()).await;
    }

    /// Begins with the first wait again.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

/// Limits log lines, so that thousands of jobs with the same trouble do not fill the log.
#[derive(Default)]
pub(crate) struct Complaints(Mutex<Option<Instant>>);

impl Complaints {
    /// Whether nothing was logged within the last 5 s.
    pub(crate) fn due(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= Duration::from_secs(5));
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_complaint_is_enough_for_a_while() {
        let complaints = Complaints::default();
        assert!(complaints.due() && !complaints.due());
    }

    #[test]
    fn doubles_within_its_bounds() {
        let mut backoff = Backoff::new();
        for span in [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
            let span = Duration::from_millis(span);
            let wait = backoff.step();
            assert!(wait >= span / 2 && wait <= span, "{wait:?} of {span:?}");
        }
        backoff.reset();
        assert!(backoff.step() <= Duration::from_millis(100));
    }
}
