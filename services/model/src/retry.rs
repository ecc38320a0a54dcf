//! The schedule of retries.

use std::time::Duration;

/// A schedule of waits: the first wait follows the first failed attempt, and so on. When all are
/// used up, the delivery has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    waits: Vec<Duration>,
}

/// Each wait is multiplied by a random number from 1 − JITTER to 1 + JITTER, so that deliveries
/// that failed together are not retried together.
pub const JITTER: f64 = 0.2;

impl Default for RetryPolicy {
    /// Fifteen attempts over 75 hours: the example schedule of Standard Webhooks 1.0.0, with five
    /// more attempts in its first gap, for endpoints that are being restarted.
    fn default() -> Self {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        let restart = [5, 5, 5, 15, 30, 2 * MINUTE];
        let outage = [
            5 * MINUTE,
            30 * MINUTE,
            2 * HOUR,
            5 * HOUR,
            10 * HOUR,
            14 * HOUR,
            20 * HOUR,
            24 * HOUR,
        ];
        let seconds = restart.into_iter().chain(outage);
        Self::new(seconds.map(Duration::from_secs).collect())
    }
}

impl RetryPolicy {
    /// Creates a schedule from waits. Without waits, there is a single attempt.
    #[must_use]
    pub fn new(waits: Vec<Duration>) -> Self {
        Self { waits }
    }

    /// Returns the waits.
    #[must_use]
    pub fn waits(&self) -> &[Duration] {
        &self.waits
    }

    /// Returns how long to wait after the attempt of this number (1 for the first) has failed, or
    /// `None` if no attempt is left. `random` is drawn uniformly from 0 to 1.
    #[must_use]
    pub fn wait_after(&self, attempt: u32, random: f64) -> Option<Duration> {
        let wait = self.waits.get(usize::try_from(attempt).ok()?.checked_sub(1)?)?;
        Some(wait.mul_f64(1.0 - JITTER + 2.0 * JITTER * random.clamp(0.0, 1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifteen_attempts_by_default_with_jitter_on_both_sides() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.wait_after(1, 0.5), Some(Duration::from_secs(5)));
        assert_eq!(policy.wait_after(1, 0.0), Some(Duration::from_secs(4)));
        assert_eq!(policy.wait_after(14, 1.0), Some(Duration::from_secs(24 * 3600).mul_f64(1.2)));
        assert_eq!(policy.wait_after(15, 0.5), None);
        assert_eq!(policy.wait_after(0, 0.5), None);
        let total: Duration = policy.waits().iter().sum();
        assert_eq!(total, Duration::from_secs(75 * 3600 + 38 * 60));
    }
}
