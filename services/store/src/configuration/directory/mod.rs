//! The directory: the bounded cache of configuration that the hot path reads. It is loaded on
//! demand and kept fresh by the change feed.

mod cached;
mod deleted_projects;
mod feed;
mod follow;
mod ids;
mod inner;
mod keys;
mod measure;
mod options;
mod pace;
mod principals;

use std::{future::Future, sync::Arc, time::Instant};

use outrider_model::{
    EndpointId, Error, EventTypeId, HashedToken, Principal, Project, ProjectId, Result, Router,
};
use outrider_shares::Holder;

use super::{
    event_types::{self, Catalog},
    projects, subscriptions,
};
use crate::Store;
use inner::Inner;
use pace::Pace;

pub use inner::EndpointEntry;
pub use options::DirectoryOptions;

/// A cheap handle to the cache. The cache is fresh while [`Directory::run`] runs.
#[derive(Clone)]
pub struct Directory {
    inner: Arc<Inner>,
}

impl Directory {
    /// An empty cache of a store.
    #[must_use]
    pub fn new(store: Store, options: DirectoryOptions) -> Self {
        let inner = Arc::new(Inner::new(store, options));
        measure::expose(&inner);
        Self { inner }
    }

    /// The principal of a token. Errors: `INVALID_CREDENTIALS` if the token is unknown, wrong,
    /// revoked or expired, or if its project was deleted; `UNAVAILABLE` if that cannot be decided.
    pub async fn principal(&self, token: &HashedToken) -> Result<Principal> {
        self.inner.principal(token).await
    }

    /// The project, if the principal reaches it. Errors: `NOT_FOUND`, `UNAVAILABLE`.
    pub async fn project(&self, principal: &Principal, id: ProjectId) -> Result<Arc<Project>> {
        principal.require_project(id)?;
        let inner = &self.inner;
        inner.trust().await?;
        let load = || async move {
            // In the caller's turn, because it may ask for any number of projects, whether or not
            // they exist. The key of the cache contains the organization, so that no caller waits
            // for the turn of another organization's caller.
            let _turn = inner.store.connection_turn(Holder::of(principal)).await?;
            let project = projects::load(inner.store.read(), id).await?;
            Ok((
                project
                    .filter(|project| project.fixed.organization == principal.organization)
                    .map(Arc::new),
                None,
            ))
        };
        let project = inner
            .reached
            .get((principal.organization, id), &inner.versions, inner.now(), load)
            .await?;
        project.ok_or_else(|| Error::not_found("project"))
    }

    /// Whether a project exists and was not deleted, for any caller.
    pub async fn project_exists(&self, id: ProjectId) -> Result<bool> {
        self.inner.trust().await?;
        Ok(self.inner.project(id).await?.is_some())
    }

    /// The compiled subscriptions of a project. Empty if the project does not exist.
    pub async fn router(&self, project: ProjectId) -> Result<Arc<Router>> {
        let inner = &self.inner;
        inner.trust().await?;
        if inner.project(project).await?.is_none() {
            return Ok(Arc::default());
        }
        let load = || async move {
            let all = subscriptions::load(inner.store.read(), project).await?;
            Ok((Arc::new(Router::new(&all)), None))
        };
        inner.routers.get(project, &inner.versions, inner.now(), load).await
    }

    /// The event types of a project. Empty if the project does not exist.
    pub async fn catalog(&self, project: ProjectId) -> Result<Arc<Catalog>> {
        let inner = &self.inner;
        inner.trust().await?;
        if inner.project(project).await?.is_none() {
            return Ok(Arc::default());
        }
        let load = || async move {
            Ok((Arc::new(event_types::load(inner.store.read(), project).await?), None))
        };
        inner.catalogs.get(project, &inner.versions, inner.now(), load).await
    }

    /// The current text of an event type's schema. Reads the database, because callers cache what
    /// they compile from it. In the turn of a caller, if one is given; without one, the number of
    /// concurrent calls must be bounded.
    pub async fn event_type_schema(
        &self,
        holder: Option<Holder>,
        id: EventTypeId,
    ) -> Result<Option<String>> {
        let store = &self.inner.store;
        match holder {
            Some(holder) => {
                store.within(event_types::load_schema(&store.caller_connection(holder), id)).await
            }
            None => store.within(event_types::load_schema(store.read(), id)).await,
        }
    }

    /// An endpoint. None if it does not exist, or if it or its project was deleted.
    pub async fn endpoint(&self, id: EndpointId) -> Result<Option<Arc<EndpointEntry>>> {
        let inner = &self.inner;
        inner.trust().await?;
        let load = || inner.load_endpoint(id);
        let Some(entry) = inner.endpoints.get(id, &inner.versions, inner.now(), load).await? else {
            return Ok(None);
        };
        let project = inner.project(entry.endpoint.fixed.project).await?;
        Ok(project.map(|_| entry))
    }

    /// Reads the change feed now, as after an announcement: all calls that begin afterwards see
    /// what was committed before. Also reads the ids of all API keys, unless they are known.
    pub async fn refresh(&self) -> Result<()> {
        self.inner.poll().await?;
        self.inner.keys.ids.load(&self.inner.store).await
    }

    /// Reads the change feed whenever `announced` returns, until dropped: immediately, or if there
    /// are many announcements, once for all that came since the last reading.
    pub async fn follow<F: Future<Output = ()>>(&self, announced: impl Fn() -> F) {
        let mut pace = Pace::default();
        loop {
            announced().await;
            tokio::time::sleep(pace.next(Instant::now())).await;
            if let Err(error) = self.refresh().await {
                tracing::debug!(%error, "an announced change was not read; the next poll reads it");
            }
        }
    }

    /// Keeps the cache fresh until dropped: polls the feed, and frees the memory of endpoints of
    /// deleted projects.
    pub async fn run(&self) {
        let mut readable = true;
        loop {
            match self.refresh().await {
                Ok(()) => readable = true,
                Err(error) if readable => {
                    tracing::warn!(
                        %error,
                        "the change feed cannot be read: cached entries are trusted for a while"
                    );
                    readable = false;
                }
                Err(_) => {}
            }
            self.inner.forget_deleted(Instant::now()).await;
            tokio::time::sleep(self.inner.options.poll).await;
        }
    }
}

#[cfg(test)]
impl Directory {
    /// Keeps everybody from reading the feed while the result lives.
    pub(crate) async fn without_feed(&self) -> impl Send + '_ {
        self.inner.feed.held().await
    }

    /// The number of API keys whose ids are known.
    pub(crate) fn key_ids(&self) -> u64 {
        self.inner.keys.ids.entries()
    }
}
