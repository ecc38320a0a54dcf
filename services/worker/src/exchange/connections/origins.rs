//! How long idle connections to an origin are useful, according to its headers and its behavior.

use std::{collections::HashMap, sync::Arc, time::Duration};

use outrider_model::OrganizationId;
use tokio::time::Instant;

/// An inactive origin is forgotten after this time.
const MEMORY: Duration = Duration::from_secs(600);
/// Connections that would be kept for less time are not kept.
const SHORTEST: Duration = Duration::from_millis(50);
/// Ends within this time count once, because a receiver that restarts ends all of its connections.
const LESSON: Duration = Duration::from_secs(1);

/// The bounds on how long idle connections are kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// For an unknown origin.
    pub(crate) idle: Duration,
    /// The maximum that an origin can ask for.
    pub(crate) told: Duration,
}

/// An origin, and the organization of the endpoint that uses it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Met<'a> {
    pub(crate) origin: &'a Arc<str>,
    pub(crate) by: OrganizationId,
}

struct Keeping {
    /// The organization that used it first, in whose share it counts.
    owner: OrganizationId,
    told: Option<Duration>,
    seen: Option<Duration>,
    lesson: Option<Instant>,
    heard: Instant,
}

/// The known origins, bounded in number. An organization with many takes no room from the others:
/// none has more than what is left.
pub(crate) struct Known {
    origins: HashMap<Arc<str>, Keeping>,
    /// The number of origins of each organization.
    shares: HashMap<OrganizationId, usize>,
    capacity: usize,
    timeouts: Timeouts,
}

impl Known {
    pub(crate) fn new(capacity: usize, timeouts: Timeouts) -> Self {
        Self { origins: HashMap::new(), shares: HashMap::new(), capacity, timeouts }
    }

    /// Returns how long an idle connection to this origin is useful. Zero if none is kept.
    pub(crate) fn time(&self, origin: &str) -> Duration {
        let Some(keeping) = self.origins.get(origin) else { return self.timeouts.idle };
        let time = keeping.told.unwrap_or(self.timeouts.idle);
        let time = keeping.seen.map_or(time, |seen| seen.min(time));
        if time < SHORTEST { Duration::ZERO } else { time }
    }

    /// Records `Keep-Alive: timeout` of a response. The end may be on its way before that.
    pub(crate) fn told(&mut self, met: Met<'_>, timeout: Duration, now: Instant) {
        let time = timeout
            .saturating_sub((timeout / 4).max(Duration::from_secs(1)))
            .min(self.timeouts.told);
        if let Some(keeping) = self.about(met, now) {
            keeping.told = Some(time);
        }
    }

    /// Records that the origin ended a connection that was idle for this long.
    pub(crate) fn ended(&mut self, met: Met<'_>, after: Duration, now: Instant) {
        self.learn(met, after * 3 / 4, now);
    }

    /// Records that a connection that was idle for this long ended when it was used again.
    pub(crate) fn met(&mut self, met: Met<'_>, after: Duration, now: Instant) {
        self.learn(met, after / 2, now);
    }

    /// Shortens the time, by half at most, because a single end may have other reasons.
    fn learn(&mut self, met: Met<'_>, time: Duration, now: Instant) {
        let known = self.time(met.origin);
        let Some(keeping) = self.about(met, now) else { return };
        if time >= known
            || keeping.lesson.is_some_and(|lesson| now.saturating_duration_since(lesson) < LESSON)
        {
            return;
        }
        (keeping.seen, keeping.lesson) = (Some(time.max(known / 2)), Some(now));
    }

    /// Returns the entry of an origin, if there is room in the share of its organization: after
    /// that, none has more than what is left for the others.
    fn about(&mut self, Met { origin, by }: Met<'_>, now: Instant) -> Option<&mut Keeping> {
        if !self.origins.contains_key(origin) {
            let (left, share) = (
                self.capacity.saturating_sub(self.origins.len()),
                self.shares.entry(by).or_default(),
            );
            if left == 0 || (*share > 0 && *share + 2 > left) {
                return None;
            }
            *share += 1;
            self.origins.insert(
                Arc::clone(origin),
                Keeping { owner: by, told: None, seen: None, lesson: None, heard: now },
            );
        }
        let keeping = self.origins.get_mut(origin)?;
        keeping.heard = now;
        Some(keeping)
    }

    pub(crate) fn sweep(&mut self, now: Instant) {
        let shares = &mut self.shares;
        self.origins.retain(|_, keeping| {
            let is_kept = now.saturating_duration_since(keeping.heard) < MEMORY;
            if !is_kept && let Some(share) = shares.get_mut(&keeping.owner) {
                *share -= 1;
            }
            is_kept
        });
        shares.retain(|_, share| *share > 0);
    }
}

#[cfg(test)]
mod tests {
    use outrider_model::Timestamp;

    use super::*;

    const TIMEOUTS: Timeouts =
        Timeouts { idle: Duration::from_millis(1_500), told: Duration::from_secs(60) };

    fn known() -> (Known, Arc<str>, Instant) {
        (Known::new(8, TIMEOUTS), Arc::from("http://a:80"), Instant::now())
    }

    fn met(origin: &Arc<str>) -> Met<'_> {
        Met { origin, by: OrganizationId::new(Timestamp(0), 1) }
    }

    #[test]
    fn what_an_origin_tells_is_kept_short_of() {
        let (mut known, origin, now) = known();
        assert_eq!(known.time(&origin), TIMEOUTS.idle);
        for (told, time) in [
            (5, 3_750),
            (2, 1_000),
            (1, 0),
            (0, 0),
            (20, 15_000),
            (3_600, 60_000),
            (u64::MAX, 60_000),
        ] {
            known.told(met(&origin), Duration::from_secs(told), now);
            assert_eq!(known.time(&origin), Duration::from_millis(time), "{told}");
        }
    }

    #[test]
    fn ends_shorten_the_time_by_half_at_most_and_once_a_second() {
        let (mut known, origin, mut now) = known();
        known.ended(met(&origin), Duration::from_millis(1_200), now);
        assert_eq!(known.time(&origin), Duration::from_millis(900));
        known.ended(met(&origin), Duration::ZERO, now);
        assert_eq!(known.time(&origin), Duration::from_millis(900), "the same lesson");
        now += LESSON;
        known.met(met(&origin), Duration::from_secs(9), now);
        assert_eq!(known.time(&origin), Duration::from_millis(900), "it is never longer");
        known.met(met(&origin), Duration::from_millis(100), now);
        assert_eq!(known.time(&origin), Duration::from_millis(450));
        for _ in 0..4 {
            now += LESSON;
            known.ended(met(&origin), Duration::ZERO, now);
        }
        assert_eq!(known.time(&origin), Duration::ZERO, "below the shortest none is kept");
        known.told(met(&origin), Duration::from_secs(20), now);
        assert_eq!(known.time(&origin), Duration::ZERO, "what it does goes before what it says");
    }

    #[test]
    fn origins_are_forgotten_and_bounded() {
        let (mut known, origin, now) = known();
        known.told(met(&origin), Duration::from_secs(5), now);
        let other = Arc::from("b");
        known.told(met(&other), Duration::from_secs(5), now + MEMORY);
        known.sweep(now + MEMORY);
        assert_eq!((known.origins.len(), known.time(&origin)), (1, TIMEOUTS.idle));
        known.sweep(now + MEMORY + MEMORY);
        assert!(known.origins.is_empty() && known.shares.is_empty());
    }

    #[test]
    fn one_that_meets_many_origins_leaves_room_for_the_others() {
        let (mut known, _, now) = known();
        let by = |number| OrganizationId::new(Timestamp(0), number);
        let told = |known: &mut Known, organization, name: &str| {
            let origin = Arc::from(name);
            known.told(Met { origin: &origin, by: by(organization) }, Duration::from_secs(5), now);
            known.time(name) != TIMEOUTS.idle
        };
        let greedy = (0..100).filter(|number| told(&mut known, 1, &format!("{number}"))).count();
        assert_eq!(greedy, 4, "half of all");
        assert!(told(&mut known, 2, "a") && told(&mut known, 2, "b") && told(&mut known, 3, "c"));
        // The last one is for an organization that has none. Then there is none left.
        assert!(!told(&mut known, 2, "d") && told(&mut known, 4, "d") && !told(&mut known, 5, "e"));
        // An entry serves all organizations, and stays with its owner.
        assert!(told(&mut known, 5, "0"));
        assert_eq!((known.shares[&by(1)], known.shares.values().sum::<usize>()), (4, 8));
    }
}
