//! How far the directory has read the change feed.

use std::{
    sync::{Mutex as Lock, PoisonError},
    time::Instant,
};

use outrider_model::{Error, Timestamp};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::Change;

#[derive(Default)]
pub(super) struct Feed {
    /// Locked while the feed is read: one reader at a time.
    pub position: Mutex<Option<Position>>,
    /// The last time at which the feed was known to have been read to its end.
    confirmed: Lock<Option<Instant>>,
    /// The last failure to read the feed, and its time.
    failed: Lock<Option<(Instant, Error)>>,
}

/// The last change seen. It is read again each time, so that a feed that was truncated or replaced
/// (a database restored from a backup) is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub seq: i64,
    at: Timestamp,
    object: Uuid,
}

impl Position {
    /// Before the first change.
    pub const START: Self = Self { seq: 0, at: Timestamp(0), object: Uuid::nil() };

    pub fn of(change: &Change) -> Self {
        Self { seq: change.seq, at: change.at, object: change.object }
    }

    /// The changes after this position, if `changes`, which were read from it on, continue it
    /// without a gap.
    pub fn follow<'a>(&self, changes: &'a [Change]) -> Option<&'a [Change]> {
        let news = match changes.split_first() {
            _ if *self == Self::START => changes,
            Some((first, news)) if Self::of(first) == *self => news,
            _ => return None,
        };
        let gapless =
            news.iter().zip(self.seq + 1..).all(|(change, expected)| change.seq == expected);
        gapless.then_some(news)
    }
}

impl Feed {
    pub fn confirmed(&self) -> Option<Instant> {
        *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn confirm(&self, at: Instant) {
        *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    #[cfg(test)]
    pub async fn held(&self) -> impl Send + '_ {
        self.position.lock().await
    }

    pub fn failed(&self) -> Option<(Instant, Error)> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn fail(&self, at: Instant, error: Error) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, error));
    }
}

#[cfg(test)]
mod tests {
    use outrider_model::OrganizationId;

    use super::*;

    fn change(seq: i64) -> Change {
        Change {
            seq,
            at: Timestamp(seq * 10),
            organization: OrganizationId(Uuid::nil()),
            project: None,
            actor: "system".to_owned(),
            kind: None,
            object: Uuid::from_u128(seq.unsigned_abs().into()),
            action: None,
            before: None,
            after: None,
        }
    }

    #[test]
    fn only_what_follows_on_without_a_gap_is_trusted() {
        let changes: Vec<Change> = (1..=4).map(change).collect();
        let second = Position::of(&changes[1]);
        assert_eq!(Position::START.follow(&changes), Some(&changes[..]));
        assert_eq!(Position::START.follow(&[]), Some(&[][..]));
        assert_eq!(Position::START.follow(&changes[1..]), None, "the beginning is missing");
        assert_eq!(second.follow(&changes[1..]), Some(&changes[2..]));
        assert_eq!(second.follow(&changes[1..2]), Some(&[][..]));
        assert_eq!(second.follow(&[]), None, "the feed ends before what was seen");
        assert_eq!(second.follow(&changes[2..]), None, "what was seen is missing");
        assert_eq!(
            second.follow(&[changes[1].clone(), changes[3].clone()]),
            None,
            "one is missing"
        );
        let other = Change { object: Uuid::nil(), ..change(2) };
        assert_eq!(second.follow(&[other, change(3)]), None, "another change stands at the place");
    }
}
