//! Waits for deliveries, of which some may be lost.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::progress::Progress;

/// The time without an arrival after which missing deliveries count as lost: longer than a lease,
/// and longer than the promised minute of recovery.
pub const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(20);

/// The arrivals so far.
#[derive(Debug, Clone, Copy)]
pub struct Arrivals {
    pub count: usize,
    /// When the last one was seen.
    pub last: Instant,
}

/// Waits until this many have arrived, or until none has arrived for `patience`.
pub async fn wait(expected: usize, patience: Duration, arrived: impl Fn() -> usize) -> Arrivals {
    let mut progress = Progress::new("deliveries arrived");
    let mut seen = Arrivals { count: arrived(), last: Instant::now() };
    while seen.count < expected && seen.last.elapsed() < patience {
        sleep(PAUSE).await;
        let count = arrived();
        if count > seen.count {
            seen = Arrivals { count, last: Instant::now() };
        }
        progress.tell(count, expected);
    }
    seen
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn waits_while_something_arrives_and_gives_up_on_the_rest() {
        let asked = Cell::new(0);
        let arriving = |most: usize| {
            asked.set(0);
            let asked = &asked;
            move || {
                asked.set(asked.get() + 1);
                asked.get().min(most)
            }
        };
        let patience = Duration::from_millis(200);
        assert_eq!(wait(20, patience, arriving(100)).await.count, 20);
        let begin = Instant::now();
        let missed = wait(7, patience, arriving(5)).await;
        assert_eq!(missed.count, 5);
        assert!(begin.elapsed() >= patience && missed.last.elapsed() >= patience);
    }
}
