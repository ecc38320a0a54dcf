//! How the directory follows the feed of changes.

use std::{
    sync::{Mutex as Lock, PoisonError},
    time::{Duration, Instant},
};

use outrider_model::{ApiKeyId, EndpointId, Error, ProjectId, Result, Timestamp};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::Inner;
use crate::{Change, ChangeAction, ChangeKind};

/// Changes read at once.
const BATCH: u64 = 500;
/// Between two times that the feed is read for those who ask about keys.
const PACE: Duration = Duration::from_millis(5);

#[derive(Default)]
pub(super) struct Feed {
    /// Held while the feed is read: one reader at a time.
    position: Mutex<Option<Position>>,
    /// When the feed was last known to have been read to its end.
    confirmed: Lock<Option<Instant>>,
    /// When it could not be read the last time, and why.
    failed: Lock<Option<(Instant, Error)>>,
}

/// The last change seen. It is read again each time, so that a feed that was cut off or replaced (a
/// database restored from a backup) is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    seq: i64,
    at: Timestamp,
    object: Uuid,
}

impl Position {
    /// Before the first change.
    const START: Self = Self { seq: 0, at: Timestamp(0), object: Uuid::nil() };

    fn of(change: &Change) -> Self {
        Self { seq: change.seq, at: change.at, object: change.object }
    }

    /// The changes after this position, if `changes`, read from its place on, follow on from it
    /// without a gap.
    fn follow<'a>(&self, changes: &'a [Change]) -> Option<&'a [Change]> {
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
    fn confirmed(&self) -> Option<Instant> {
        *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn confirm(&self, at: Instant) {
        *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    #[cfg(test)]
    pub(super) async fn held(&self) -> impl Send + '_ {
        self.position.lock().await
    }

    fn failed(&self) -> Option<(Instant, Error)> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Inner {
    /// OK when what is cached may be used. At first, and when nobody has read the feed for too
    /// long, it is read here, by one caller; others are told that nobody can tell.
    pub(super) async fn trust(&self) -> Result<()> {
        match self.feed.confirmed() {
            Some(at) if at.elapsed() <= self.options.max_stale => Ok(()),
            // Boxed: it is rare, and would make every future of the hot path as large.
            confirmed => Box::pin(self.read_instead(confirmed)).await,
        }
    }

    async fn read_instead(&self, confirmed: Option<Instant>) -> Result<()> {
        match confirmed {
            // At first all wait for the one who reads.
            None => {
                let mut position = self.feed.position.lock().await;
                if self.feed.confirmed().is_some() {
                    Ok(())
                } else {
                    self.read_feed(&mut position).await
                }
            }
            Some(_) => match self.feed.position.try_lock() {
                Ok(mut position) => self.read_feed(&mut position).await,
                Err(_) => Err(Error::unavailable("the cached configuration is too old")),
            },
        }
    }

    /// Reads the feed to its end.
    pub(super) async fn poll(&self) -> Result<()> {
        let mut position = self.feed.position.lock().await;
        self.read_feed(&mut position).await
    }

    /// The same, but one reading serves all who asked before it began.
    pub(super) async fn poll_for(&self, asked: Instant) -> Result<()> {
        let mut position = self.feed.position.lock().await;
        let confirmed = self.feed.confirmed();
        if confirmed.is_some_and(|at| at >= asked) {
            return Ok(());
        }
        match self.feed.failed() {
            Some((at, error)) if at >= asked => return Err(error),
            _ => {}
        }
        if let Some(at) = confirmed {
            tokio::time::sleep_until((at + PACE).into()).await;
        }
        self.read_feed(&mut position).await
    }

    async fn read_feed(&self, position: &mut Option<Position>) -> Result<()> {
        let began = Instant::now();
        let outcome = self.store.within(self.follow_feed(position)).await;
        if let Err(error) = &outcome {
            *self.feed.failed.lock().unwrap_or_else(PoisonError::into_inner) =
                Some((began, error.clone()));
        }
        outcome
    }

    async fn follow_feed(&self, position: &mut Option<Position>) -> Result<()> {
        if self.feed.confirmed().is_some_and(|at| at.elapsed() > self.options.max_stale) {
            *position = None;
        }
        loop {
            let (began, now) = (Instant::now(), self.now());
            let Some(last) = *position else {
                *position = Some(self.start().await?);
                self.feed.confirm(began);
                self.keys.ids.confirm(now);
                return Ok(());
            };
            let changes = self.store.changes(last.seq.max(1), BATCH).await?;
            let Some(news) = last.follow(&changes) else {
                tracing::warn!(
                    seq = last.seq,
                    "the change feed does not go on where it was: all cached configuration is dropped"
                );
                *position = None;
                continue;
            };
            for change in news {
                self.apply(change).await;
                *position = Some(Position::of(change));
            }
            if (changes.len() as u64) < BATCH {
                self.feed.confirm(began);
                self.keys.ids.confirm(now);
                return Ok(());
            }
        }
    }

    /// Begins at the feed's end, with nothing cached.
    async fn start(&self) -> Result<Position> {
        let last = self.store.last_change().await?;
        // After the place was read: what is loaded from now on contains all before it.
        self.versions.drop_everything();
        self.keys.clear();
        self.projects.clear();
        self.reached.clear();
        self.routers.clear();
        self.catalogues.clear();
        self.endpoints.clear();
        Ok(last.as_ref().map_or(Position::START, Position::of))
    }

    /// Drops what a change has made old. What belongs to a deleted project is not used any more,
    /// since its project is asked for at each use: its memory is freed later, for many projects at
    /// once.
    async fn apply(&self, change: &Change) {
        let version = self.versions.next();
        match change.kind {
            Some(ChangeKind::Project) => {
                if change.action == Some(ChangeAction::Delete) {
                    self.gone.add(ProjectId(change.object));
                }
                self.projects.invalidate(ProjectId(change.object), version).await;
                self.reached
                    .invalidate((change.organization, ProjectId(change.object)), version)
                    .await;
                self.routers.invalidate(ProjectId(change.object), version).await;
                self.catalogues.invalidate(ProjectId(change.object), version).await;
            }
            Some(ChangeKind::ApiKey) => {
                self.keys.apply(ApiKeyId(change.object), change.action, version).await
            }
            Some(ChangeKind::Endpoint) => {
                self.endpoints.invalidate(EndpointId(change.object), version).await;
                // A router tells which endpoints there are, and nothing of how they are: an update
                // leaves it as it is.
                if let Some(project) =
                    change.project.filter(|_| change.action != Some(ChangeAction::Update))
                {
                    self.routers.invalidate(project, version).await;
                }
            }
            Some(ChangeKind::Subscription) => {
                if let Some(project) = change.project {
                    self.routers.invalidate(project, version).await;
                }
            }
            Some(ChangeKind::EventType) => {
                if let Some(project) = change.project {
                    self.catalogues.invalidate(project, version).await;
                }
            }
            // Organisations are not cached; kinds of a newer version name nothing that this one
            // caches.
            Some(ChangeKind::Organization) | None => {}
        }
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
