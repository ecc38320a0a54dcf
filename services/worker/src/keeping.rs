//! How long idle connections to an origin are of use, as far as it has told or shown.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;

/// An origin of which nothing is heard for so long is forgotten.
const MEMORY: Duration = Duration::from_secs(600);
/// Connections that would be kept for less are not kept.
const SHORTEST: Duration = Duration::from_millis(50);
/// Ends within so long of each other are one lesson: a receiver that restarts ends all its connections.
const LESSON: Duration = Duration::from_secs(1);

/// The bounds on how long idle connections are kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// To an origin of which nothing is known.
    pub(crate) idle: Duration,
    /// The most that an origin can ask for.
    pub(crate) told: Duration,
}

struct Keeping {
    told: Option<Duration>,
    seen: Option<Duration>,
    lesson: Option<Instant>,
    heard: Instant,
}

/// What is known of origins, bounded in number.
pub(crate) struct Known {
    origins: HashMap<Arc<str>, Keeping>,
    capacity: usize,
    timeouts: Timeouts,
}

impl Known {
    pub(crate) fn new(capacity: usize, timeouts: Timeouts) -> Self {
        Self { origins: HashMap::new(), capacity, timeouts }
    }

    /// How long an idle connection to this origin is of use; zero when none is kept.
    pub(crate) fn time(&self, origin: &str) -> Duration {
        let Some(keeping) = self.origins.get(origin) else { return self.timeouts.idle };
        let time = keeping.told.unwrap_or(self.timeouts.idle);
        let time = keeping.seen.map_or(time, |seen| seen.min(time));
        if time < SHORTEST { Duration::ZERO } else { time }
    }

    /// An answer said `Keep-Alive: timeout`. Its end may be on its way before that.
    pub(crate) fn told(&mut self, origin: &Arc<str>, timeout: Duration, now: Instant) {
        let time = timeout.saturating_sub((timeout / 4).max(Duration::from_secs(1))).min(self.timeouts.told);
        if let Some(keeping) = self.about(origin, now) {
            keeping.told = Some(time);
        }
    }

    /// The origin ended a connection that was idle for so long.
    pub(crate) fn ended(&mut self, origin: &Arc<str>, after: Duration, now: Instant) {
        self.learn(origin, after * 3 / 4, now);
    }

    /// It ended one that was idle for so long when the next request came.
    pub(crate) fn met(&mut self, origin: &Arc<str>, after: Duration, now: Instant) {
        self.learn(origin, after / 2, now);
    }

    /// Shortens the time, by half at most: one end may have other reasons.
    fn learn(&mut self, origin: &Arc<str>, time: Duration, now: Instant) {
        let known = self.time(origin);
        let Some(keeping) = self.about(origin, now) else { return };
        if time >= known || keeping.lesson.is_some_and(|lesson| now.saturating_duration_since(lesson) < LESSON) {
            return;
        }
        (keeping.seen, keeping.lesson) = (Some(time.max(known / 2)), Some(now));
    }

    fn about(&mut self, origin: &Arc<str>, now: Instant) -> Option<&mut Keeping> {
        if !self.origins.contains_key(origin) {
            if self.origins.len() >= self.capacity {
                return None;
            }
            let nothing = Keeping { told: None, seen: None, lesson: None, heard: now };
            self.origins.insert(Arc::clone(origin), nothing);
        }
        let keeping = self.origins.get_mut(origin)?;
        keeping.heard = now;
        Some(keeping)
    }

    pub(crate) fn sweep(&mut self, now: Instant) {
        self.origins.retain(|_, keeping| now.saturating_duration_since(keeping.heard) < MEMORY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUTS: Timeouts = Timeouts { idle: Duration::from_millis(1_500), told: Duration::from_secs(60) };

    fn known() -> (Known, Arc<str>, Instant) {
        (Known::new(2, TIMEOUTS), Arc::from("http://a:80"), Instant::now())
    }

    #[test]
    fn what_an_origin_tells_is_kept_short_of() {
        let (mut known, origin, now) = known();
        assert_eq!(known.time(&origin), TIMEOUTS.idle);
        for (told, time) in [(5, 3_750), (2, 1_000), (1, 0), (0, 0), (20, 15_000), (3_600, 60_000), (u64::MAX, 60_000)] {
            known.told(&origin, Duration::from_secs(told), now);
            assert_eq!(known.time(&origin), Duration::from_millis(time), "{told}");
        }
    }

    #[test]
    fn ends_shorten_the_time_by_half_at_most_and_once_a_second() {
        let (mut known, origin, mut now) = known();
        known.ended(&origin, Duration::from_millis(1_200), now);
        assert_eq!(known.time(&origin), Duration::from_millis(900));
        known.ended(&origin, Duration::ZERO, now);
        assert_eq!(known.time(&origin), Duration::from_millis(900), "the same lesson");
        now += LESSON;
        known.met(&origin, Duration::from_secs(9), now);
        assert_eq!(known.time(&origin), Duration::from_millis(900), "it is never longer");
        known.met(&origin, Duration::from_millis(100), now);
        assert_eq!(known.time(&origin), Duration::from_millis(450));
        for _ in 0..4 {
            now += LESSON;
            known.ended(&origin, Duration::ZERO, now);
        }
        assert_eq!(known.time(&origin), Duration::ZERO, "below the shortest none is kept");
        known.told(&origin, Duration::from_secs(20), now);
        assert_eq!(known.time(&origin), Duration::ZERO, "what it does goes before what it says");
    }

    #[test]
    fn origins_are_forgotten_and_bounded() {
        let (mut known, origin, now) = known();
        known.told(&origin, Duration::from_secs(5), now);
        for other in ["b", "c"] {
            known.told(&Arc::from(other), Duration::from_secs(5), now);
        }
        assert_eq!((known.time("b"), known.time("c")), (Duration::from_millis(3_750), TIMEOUTS.idle));
        known.told(&Arc::from("b"), Duration::from_secs(5), now + MEMORY);
        known.sweep(now + MEMORY);
        assert_eq!((known.origins.len(), known.time(&origin)), (1, TIMEOUTS.idle));
    }
}
