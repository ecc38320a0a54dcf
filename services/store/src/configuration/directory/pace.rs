//! Bounds how often announcements make the directory read the change feed. Every process reads it
//! for every announcement, so without a bound, a caller with many changes would burden all of them.

use std::time::{Duration, Instant};

/// Number of readings that may follow each other without a pause.
const AT_ONCE: u32 = 16;
/// Minimum time between readings after that: the maximum delay until a change is in force.
const EVERY: Duration = Duration::from_millis(50);

/// A bucket of readings that refills, represented by the time at which it is full (the generic cell
/// rate algorithm, ITU-T I.371).
#[derive(Debug, Default)]
pub(super) struct Pace {
    full: Option<Instant>,
}

impl Pace {
    /// Counts a reading. Returns how long it must wait.
    pub fn next(&mut self, now: Instant) -> Duration {
        let full = self.full.map_or(now, |full| full.max(now));
        self.full = Some(full + EVERY);
        (full - now).saturating_sub(EVERY * (AT_ONCE - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_go_at_once_and_the_others_at_their_pace() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        let mut now = start;
        let waits: Vec<_> = (0..2 * AT_ONCE)
            .map(|_| {
                let wait = pace.next(now);
                now += wait;
                wait
            })
            .collect();
        let (at_once, paced) = waits.split_at(AT_ONCE as usize);
        assert!(at_once.iter().all(Duration::is_zero), "{at_once:?}");
        assert!(paced.iter().all(|wait| *wait == EVERY), "{paced:?}");
        // After half the time, half of the bucket is available again.
        now += EVERY * AT_ONCE / 2;
        let again = (0..AT_ONCE).take_while(|_| pace.next(now).is_zero()).count();
        assert_eq!(again, (AT_ONCE / 2) as usize);
    }
}
