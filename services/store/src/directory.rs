//! The directory: the bounded cache of configuration that the hot path reads. Loaded on demand,
//! kept fresh by the change feed.

mod cached;
mod feed;
mod gone;
mod ids;
mod keys;
mod pace;

use std::{future::Future, sync::Arc, time::Instant};

use outrider_model::{
    Endpoint, EndpointId, Error, EventTypeId, OrganizationId, Principal, Project, ProjectId,
    Reason, Result, Router, SigningSecret, Timestamp,
};
use outrider_shares::Holder;

use crate::{
    Catalogue, DirectoryOptions, Store, endpoint_secrets, endpoints, event_types, measure,
    projects, subscriptions,
};
use cached::{Cached, Versions};
use feed::Feed;
use gone::Gone;
use keys::Keys;
use pace::Pace;

/// What a worker needs of an endpoint.
#[derive(Debug)]
pub struct EndpointEntry {
    /// Of the endpoint's project.
    pub organization: OrganizationId,
    pub endpoint: Endpoint,
    /// All that sign: the newest first.
    pub secrets: Vec<SigningSecret>,
    /// Whether what is encrypted of it could be opened. If not, it has masks in place of values and
    /// no secrets: events that match it are accepted, and nothing can be sent to it.
    pub is_readable: bool,
}

/// A cheap handle to the cache. It is fresh while [`Directory::run`] runs.
#[derive(Clone)]
pub struct Directory {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    options: DirectoryOptions,
    feed: Feed,
    versions: Versions,
    keys: Keys,
    projects: Cached<ProjectId, Option<Arc<Project>>>,
    /// As callers of an organisation see them.
    reached: Cached<(OrganizationId, ProjectId), Option<Arc<Project>>>,
    routers: Cached<ProjectId, Arc<Router>>,
    catalogues: Cached<ProjectId, Arc<Catalogue>>,
    endpoints: Cached<EndpointId, Option<Arc<EndpointEntry>>>,
    gone: Gone,
}

impl Directory {
    /// An empty cache of a store.
    #[must_use]
    pub fn new(store: Store, options: DirectoryOptions) -> Self {
        let (capacity, patience) = (options.capacity, store.patience());
        let inner = Inner {
            keys: Keys::new(&options, patience),
            store,
            options,
            feed: Feed::default(),
            versions: Versions::default(),
            projects: Cached::new("project", capacity, patience),
            reached: Cached::new("reached_project", capacity, patience),
            routers: Cached::new("router", capacity, patience),
            catalogues: Cached::new("catalogue", capacity, patience),
            endpoints: Cached::new("endpoint", capacity, patience),
            gone: Gone::default(),
        };
        let inner = Arc::new(inner);
        measure::expose_directory(&inner);
        Self { inner }
    }

    /// The project, when the principal reaches it. Errors: `NOT_FOUND`, `UNAVAILABLE`.
    pub async fn project(&self, principal: &Principal, id: ProjectId) -> Result<Arc<Project>> {
        principal.require_project(id)?;
        let inner = &self.inner;
        inner.trust().await?;
        let load = || async move {
            // In the caller's turn: it may ask for any number of projects, whether or not they
            // exist. The key of the cache holds the organisation, so that nobody waits for the turn
            // of somebody else's caller.
            let _turn = inner.store.connection_turn(Holder::of(principal)).await?;
            let project = projects::load(inner.store.read(), id).await?;
            Ok((
                project
                    .filter(|project| project.organization == principal.organization)
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

    /// Whether a project exists (deleted ones do not), whoever asks.
    pub async fn project_exists(&self, id: ProjectId) -> Result<bool> {
        self.inner.trust().await?;
        Ok(self.inner.project(id).await?.is_some())
    }

    /// The compiled subscriptions of a project; none when it does not exist.
    pub async fn router(&self, project: ProjectId) -> Result<Arc<Router>> {
        let inner = &self.inner;
        inner.trust().await?;
        if inner.project(project).await?.is_none() {
            return Ok(Arc::default());
        }
        let load = || async move {
            let subscriptions = subscriptions::load(inner.store.read(), project).await?;
            Ok((Arc::new(Router::new(&subscriptions)), None))
        };
        inner.routers.get(project, &inner.versions, inner.now(), load).await
    }

    /// The event types of a project; none when it does not exist.
    pub async fn catalogue(&self, project: ProjectId) -> Result<Arc<Catalogue>> {
        let inner = &self.inner;
        inner.trust().await?;
        if inner.project(project).await?.is_none() {
            return Ok(Arc::default());
        }
        let load = || async move {
            Ok((Arc::new(event_types::load(inner.store.read(), project).await?), None))
        };
        inner.catalogues.get(project, &inner.versions, inner.now(), load).await
    }

    /// The text of an event type's schema as it is now, from the database: for whoever keeps what
    /// it makes of it. In the turn of a caller, unless there is none because few may ask at once.
    pub async fn event_type_schema(
        &self,
        holder: Option<Holder>,
        id: EventTypeId,
    ) -> Result<Option<String>> {
        let store = &self.inner.store;
        match holder {
            Some(holder) => {
                store.within(event_types::load_schema(&store.asked_as(holder), id)).await
            }
            None => store.within(event_types::load_schema(store.read(), id)).await,
        }
    }

    /// An endpoint; none when it does not exist or was deleted, itself or its project.
    pub async fn endpoint(&self, id: EndpointId) -> Result<Option<Arc<EndpointEntry>>> {
        let inner = &self.inner;
        inner.trust().await?;
        let load = || inner.load_endpoint(id);
        let Some(entry) = inner.endpoints.get(id, &inner.versions, inner.now(), load).await? else {
            return Ok(None);
        };
        let project = inner.project(entry.endpoint.project).await?;
        Ok(project.map(|_| entry))
    }

    /// Reads the change feed now, as after an announcement: what was committed before is seen by
    /// all calls that begin afterwards. Reads the ids of all API keys, too, unless they are known.
    pub async fn refresh(&self) -> Result<()> {
        self.inner.poll().await?;
        self.inner.keys.ids.load(&self.inner.store).await
    }

    /// Reads the change feed when `announced` returns, until dropped: at once, unless there are
    /// many announcements; then one reading is for all that came since the last.
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

    /// Keeps the cache fresh until dropped: polls the feed. Forgets the endpoints of deleted
    /// projects.
    pub async fn run(&self) {
        let mut readable = true;
        loop {
            match self.refresh().await {
                Ok(()) => readable = true,
                Err(error) if readable => {
                    tracing::warn!(%error, "the change feed cannot be read: cached configuration is trusted for a while");
                    readable = false;
                }
                Err(_) => {}
            }
            self.inner.forget_gone(Instant::now()).await;
            tokio::time::sleep(self.inner.options.poll).await;
        }
    }
}

impl measure::Entries for Inner {
    fn entries(&self) -> Vec<(&'static str, u64)> {
        let projects = [self.projects.entries(), self.reached.entries()];
        self.keys
            .entries()
            .into_iter()
            .chain(projects)
            .chain([self.routers.entries(), self.endpoints.entries()])
            .collect()
    }
}

impl Inner {
    fn now(&self) -> Timestamp {
        self.store.clock().now()
    }

    /// Frees the memory of the endpoints, with their secrets, of projects that were deleted.
    async fn forget_gone(&self, now: Instant) {
        let Some(gone) = self.gone.due(now) else { return };
        let is_gone = |entry: &Option<Arc<EndpointEntry>>| {
            entry.as_ref().is_some_and(|entry| gone.has(entry.endpoint.project))
        };
        self.endpoints.forget(is_gone).await;
    }

    async fn project(&self, id: ProjectId) -> Result<Option<Arc<Project>>> {
        let load = || async move {
            Ok((projects::load(self.store.read(), id).await?.map(Arc::new), None))
        };
        self.projects.get(id, &self.versions, self.now(), load).await
    }

    /// The endpoint, and until when it may be used as it is: until one of its secrets expires.
    async fn load_endpoint(
        &self,
        id: EndpointId,
    ) -> Result<(Option<Arc<EndpointEntry>>, Option<Timestamp>)> {
        let store = &self.store;
        let Some((endpoint, has_values)) =
            endpoints::load(store.read(), store.master_keys(), id).await?
        else {
            return Ok((None, None));
        };
        // A project never changes its organisation. One that is not known here yet was made by a
        // change before the one that made its endpoint, which then is loaded again.
        let Some(project) = self.project(endpoint.project).await? else { return Ok((None, None)) };
        let stored = match endpoint_secrets::load(
            store.read(),
            store.master_keys(),
            id,
            store.clock().now(),
        )
        .await
        {
            Err(error) if error.reason == Reason::Internal => Vec::new(),
            stored => stored?,
        };
        let is_readable = has_values && !stored.is_empty();
        let until = stored.iter().filter_map(|stored| stored.expires_at).min();
        let secrets = stored.into_iter().map(|stored| stored.secret).collect();
        Ok((
            Some(Arc::new(EndpointEntry {
                organization: project.organization,
                endpoint,
                secrets,
                is_readable,
            })),
            until,
        ))
    }
}
