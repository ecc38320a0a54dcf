//! The directory: the bounded cache of configuration that the hot path reads. Loaded on demand, kept fresh by the change feed.

mod cached;
mod feed;

use std::{sync::Arc, time::Duration};

use outrider_model::{
    ApiKeyId, Endpoint, EndpointId, Error, EventTypeId, HashedToken, OrganizationId, Principal, Project, ProjectId, Reason,
    Result, Router, SigningSecret, Timestamp, principal::Actor,
};

use tokio::sync::Semaphore;

use crate::{Catalogue, Store, api_keys, endpoint_secrets, endpoints, event_types, measure, projects, subscriptions};
use cached::{Cached, Versions};
use feed::Feed;

/// How the directory behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryOptions {
    /// Entries kept of each kind. Default 100,000.
    pub capacity: u64,
    /// How often the change feed is polled. Default 500 ms.
    pub poll: Duration,
    /// How long entries are trusted while the feed cannot be read. Default 5 min.
    pub max_stale: Duration,
}

impl Default for DirectoryOptions {
    fn default() -> Self {
        Self { capacity: 100_000, poll: Duration::from_millis(500), max_stale: Duration::from_secs(5 * 60) }
    }
}

/// What a worker needs of an endpoint.
#[derive(Debug)]
pub struct EndpointEntry {
    /// Of the endpoint's project.
    pub organization: OrganizationId,
    pub endpoint: Endpoint,
    /// All that sign: the newest first.
    pub secrets: Vec<SigningSecret>,
}

/// What a token is checked against.
struct KeyEntry {
    hash: Vec<u8>,
    expires_at: Option<Timestamp>,
    principal: Principal,
}

/// API keys that do not exist and are remembered as such. They have a share of their own: invented keys displace no others.
const UNKNOWN_KEYS: u64 = 10_000;
/// API keys that are looked for in the database at once; further ones wait, and leave its connections to others.
const KEY_LOADS: usize = 4;
/// API keys that are looked for or wait for it; more are refused as overload, so that a flood of
/// invented keys never makes a caller wait for long.
const KEY_QUESTIONS: usize = 1_024;

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
    keys: Cached<ApiKeyId, Option<Arc<KeyEntry>>>,
    unknown_keys: Cached<ApiKeyId, ()>,
    key_loads: Semaphore,
    key_questions: Semaphore,
    projects: Cached<ProjectId, Option<Arc<Project>>>,
    routers: Cached<ProjectId, Arc<Router>>,
    catalogues: Cached<ProjectId, Arc<Catalogue>>,
    endpoints: Cached<EndpointId, Option<Arc<EndpointEntry>>>,
}

impl Directory {
    /// An empty cache of a store.
    #[must_use]
    pub fn new(store: Store, options: DirectoryOptions) -> Self {
        let (capacity, patience) = (options.capacity, store.patience());
        let inner = Inner {
            store,
            options,
            feed: Feed::default(),
            versions: Versions::default(),
            keys: Cached::new("key", capacity, patience),
            unknown_keys: Cached::new("unknown_key", UNKNOWN_KEYS.min(capacity), patience),
            key_loads: Semaphore::new(KEY_LOADS),
            key_questions: Semaphore::new(KEY_QUESTIONS),
            projects: Cached::new("project", capacity, patience),
            routers: Cached::new("router", capacity, patience),
            catalogues: Cached::new("catalogue", capacity, patience),
            endpoints: Cached::new("endpoint", capacity, patience),
        };
        let inner = Arc::new(inner);
        measure::expose_directory(&inner);
        Self { inner }
    }

    /// The principal of a token. Errors: `INVALID_CREDENTIALS` when it is unknown, wrong, revoked, expired or its project is
    /// gone; `UNAVAILABLE` when nobody can tell.
    pub async fn principal(&self, token: &HashedToken) -> Result<Principal> {
        let inner = &self.inner;
        inner.trust().await?;
        let entry = inner.key(token.id).await?;
        let expired = entry.expires_at.is_some_and(|at| at <= inner.now());
        if !token.matches(&entry.hash) || expired {
            return Err(invalid());
        }
        if let Some(project) = entry.principal.project
            && inner.project(project).await?.is_none()
        {
            return Err(invalid());
        }
        Ok(entry.principal.clone())
    }

    /// The project, when the principal reaches it. Errors: `NOT_FOUND`, `UNAVAILABLE`.
    pub async fn project(&self, principal: &Principal, id: ProjectId) -> Result<Arc<Project>> {
        principal.require_project(id)?;
        self.inner.trust().await?;
        let project = self.inner.project(id).await?;
        project.filter(|project| project.organization == principal.organization).ok_or_else(|| Error::not_found("project"))
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
        let load = || async move { Ok((Arc::new(event_types::load(inner.store.read(), project).await?), None)) };
        inner.catalogues.get(project, &inner.versions, inner.now(), load).await
    }

    /// The text of an event type's schema as it is now, from the database: for who keeps what it makes of it.
    pub async fn event_type_schema(&self, id: EventTypeId) -> Result<Option<String>> {
        self.inner.store.within(event_types::load_schema(self.inner.store.read(), id)).await
    }

    /// An endpoint; none when it does not exist or was deleted, itself or its project.
    pub async fn endpoint(&self, id: EndpointId) -> Result<Option<Arc<EndpointEntry>>> {
        let inner = &self.inner;
        inner.trust().await?;
        let load = || load_endpoint(&inner.store, id);
        let Some(entry) = inner.endpoints.get(id, &inner.versions, inner.now(), load).await? else { return Ok(None) };
        let project = inner.project(entry.endpoint.project).await?;
        Ok(project.map(|_| entry))
    }

    /// Reads the change feed now, as after an announcement: what was committed before is seen by all calls that begin afterwards.
    pub async fn refresh(&self) -> Result<()> {
        self.inner.poll().await
    }

    /// Keeps the cache fresh until dropped: polls the feed.
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
            tokio::time::sleep(self.inner.options.poll).await;
        }
    }
}

impl measure::Entries for Inner {
    fn entries(&self) -> Vec<(&'static str, u64)> {
        let keys = [self.keys.entries(), self.unknown_keys.entries()];
        keys.into_iter().chain([self.projects.entries(), self.routers.entries(), self.endpoints.entries()]).collect()
    }
}

impl Inner {
    fn now(&self) -> Timestamp {
        self.store.clock().now()
    }

    /// The key, or `INVALID_CREDENTIALS` when there is none.
    async fn key(&self, id: ApiKeyId) -> Result<Arc<KeyEntry>> {
        if self.unknown_keys.has(id, &self.versions).await {
            return Err(invalid());
        }
        let load = || async move {
            let too_many = |_| Error::overloaded("too many API keys that are not known here are asked about");
            let _place = self.key_questions.try_acquire().map_err(too_many)?;
            let _turn = self.key_loads.acquire().await.map_err(|_| Error::internal("the directory is closed"))?;
            Ok((load_key(&self.store, id).await?, None))
        };
        if let Some(entry) = self.keys.get(id, &self.versions, self.now(), load).await? {
            return Ok(entry);
        }
        // What others found meanwhile is read again when it is asked for.
        if let Some((None, began)) = self.keys.take(id).await {
            self.unknown_keys.put(id, (), began).await;
        }
        Err(invalid())
    }

    async fn project(&self, id: ProjectId) -> Result<Option<Arc<Project>>> {
        let load = || async move { Ok((projects::load(self.store.read(), id).await?.map(Arc::new), None)) };
        self.projects.get(id, &self.versions, self.now(), load).await
    }
}

fn invalid() -> Error {
    Error::new(Reason::InvalidCredentials, "the API key is not valid")
}

async fn load_key(store: &Store, id: ApiKeyId) -> Result<Option<Arc<KeyEntry>>> {
    let Some((key, hash)) = api_keys::load(store.read(), id).await? else { return Ok(None) };
    let principal = Principal {
        organization: key.organization,
        project: key.project,
        owner: None,
        actor: Actor::ApiKey(id),
        scopes: key.scopes,
    };
    Ok(Some(Arc::new(KeyEntry { hash, expires_at: key.expires_at, principal })))
}

/// The endpoint, and until when it may be used as it is: until one of its secrets expires.
async fn load_endpoint(store: &Store, id: EndpointId) -> Result<(Option<Arc<EndpointEntry>>, Option<Timestamp>)> {
    let Some(endpoint) = endpoints::load(store.read(), id).await? else { return Ok((None, None)) };
    // A project never changes its organisation.
    let Some(project) = projects::load(store.read(), endpoint.project).await? else { return Ok((None, None)) };
    let stored = endpoint_secrets::load(store.read(), store.master_keys(), id, store.clock().now()).await?;
    let until = stored.iter().filter_map(|stored| stored.expires_at).min();
    let secrets = stored.into_iter().map(|stored| stored.secret).collect();
    Ok((Some(Arc::new(EndpointEntry { organization: project.organization, endpoint, secrets })), until))
}
