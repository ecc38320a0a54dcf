//! How often the change feed is read because a change was announced: every process reads it for
//! every announcement, so without a bound a caller that changes much would cost all of them.

use std::time::{Duration, Instant};

/// Announcements that are followed at once, one after the other.
const AT_ONCE: u32 = 16;
/// Between two readings after that. A change is in force so much later at most.
const EVERY: Duration = Duration::from_millis(50);

/// A bucket of readings that fills up again, as the moment at which it is full (the generic cell
/// rate algorithm, ITU-T I.371).
#[derive(Debug, Default)]
pub(super) struct Pace {
    full: Option<Instant>,
}

impl Pace {
    /// Counts a reading. How long it waits: not at all, or until it is its turn.
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
        // Half of what may go at once is there again after half the time.
        now += EVERY * AT_ONCE / 2;
        let again = (0..AT_ONCE).take_while(|_| pace.next(now).is_zero()).count();
        assert_eq!(again, (AT_ONCE / 2) as usize);
    }
}
