//! How the directory follows the change feed.

use std::time::{Duration, Instant};

use outrider_model::{ApiKeyId, EndpointId, Error, ProjectId, Result};

use super::{feed::Position, inner::Inner};
use crate::{Change, ChangeAction, ChangeKind};

/// Number of changes read at once.
const BATCH: u64 = 500;
/// Minimum time between two readings of the feed for callers that ask about keys.
const PACE: Duration = Duration::from_millis(5);

impl Inner {
    /// Checks that the cache may be used. Before the first reading of the feed, and if the last one
    /// is too old, a caller reads it here. While one caller catches up, others get an error.
    pub async fn trust(&self) -> Result<()> {
        match self.feed.confirmed() {
            Some(at) if at.elapsed() <= self.options.max_stale => Ok(()),
            // Boxed: it is rare, and would enlarge every future of the hot path.
            confirmed => Box::pin(self.read_instead(confirmed)).await,
        }
    }

    async fn read_instead(&self, confirmed: Option<Instant>) -> Result<()> {
        match confirmed {
            // Before the first reading, all wait for the caller that reads.
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
    pub async fn poll(&self) -> Result<()> {
        let mut position = self.feed.position.lock().await;
        self.read_feed(&mut position).await
    }

    /// The same, but one reading serves all callers that asked before it began.
    pub async fn poll_for(&self, asked: Instant) -> Result<()> {
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
            self.feed.fail(began, error.clone());
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
                    "the change feed does not continue where it was: all cached configuration is \
                     dropped"
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

    /// Starts at the end of the feed, with nothing cached.
    async fn start(&self) -> Result<Position> {
        let last = self.store.last_change().await?;
        // After the position was read: what is loaded from now on includes all changes before it.
        self.versions.drop_everything();
        self.keys.clear();
        self.projects.clear();
        self.reached.clear();
        self.routers.clear();
        self.catalogs.clear();
        self.endpoints.clear();
        Ok(last.as_ref().map_or(Position::START, Position::of))
    }

    /// Drops what a change has made stale. Entries that belong to a deleted project are not used
    /// any more, since each use checks the project. Their memory is freed later, for many projects
    /// at once.
    async fn apply(&self, change: &Change) {
        let version = self.versions.next();
        match change.kind {
            Some(ChangeKind::Project) => {
                if change.action == Some(ChangeAction::Delete) {
                    self.deleted_projects.add(ProjectId(change.object));
                }
                self.projects.invalidate(ProjectId(change.object), version).await;
                self.reached
                    .invalidate((change.organization, ProjectId(change.object)), version)
                    .await;
                self.routers.invalidate(ProjectId(change.object), version).await;
                self.catalogs.invalidate(ProjectId(change.object), version).await;
            }
            Some(ChangeKind::ApiKey) => {
                self.keys.apply(ApiKeyId(change.object), change.action, version).await
            }
            Some(ChangeKind::Endpoint) => {
                self.endpoints.invalidate(EndpointId(change.object), version).await;
                // A router depends on which endpoints exist, not on their fields: an update does
                // not affect it.
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
                    self.catalogs.invalidate(project, version).await;
                }
            }
            // Organizations are not cached, and kinds of a newer version name nothing that this
            // version caches.
            Some(ChangeKind::Organization) | None => {}
        }
    }
}
