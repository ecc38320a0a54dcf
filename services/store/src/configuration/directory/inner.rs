//! The caches of the directory, and how projects and endpoints get into them.

use std::{sync::Arc, time::Instant};

use outrider_model::{
    Endpoint, EndpointId, OrganizationId, Project, ProjectId, Reason, Result, Router,
    SigningSecret, Timestamp,
};

use super::{
    cached::{Cached, Versions},
    deleted_projects::DeletedProjects,
    feed::Feed,
    keys::Keys,
    measure,
    options::DirectoryOptions,
};
use crate::{
    Store,
    configuration::{endpoint_secrets, endpoints, event_types::Catalog, projects},
};

/// What a worker needs to know about an endpoint.
#[derive(Debug)]
pub struct EndpointEntry {
    /// The organization of the endpoint's project.
    pub organization: OrganizationId,
    pub endpoint: Endpoint,
    /// All secrets in use, newest first.
    pub secrets: Vec<SigningSecret>,
    /// Whether its encrypted values could be decrypted. If not, it has masks in their place and no
    /// secrets: events that match it are accepted, but nothing can be sent to it.
    pub is_readable: bool,
}

pub(super) struct Inner {
    pub store: Store,
    pub options: DirectoryOptions,
    pub feed: Feed,
    pub versions: Versions,
    pub keys: Keys,
    pub projects: Cached<ProjectId, Option<Arc<Project>>>,
    /// Projects as callers of an organization see them.
    pub reached: Cached<(OrganizationId, ProjectId), Option<Arc<Project>>>,
    pub routers: Cached<ProjectId, Arc<Router>>,
    pub catalogs: Cached<ProjectId, Arc<Catalog>>,
    pub endpoints: Cached<EndpointId, Option<Arc<EndpointEntry>>>,
    pub deleted_projects: DeletedProjects,
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
    /// Empty caches of a store.
    pub fn new(store: Store, options: DirectoryOptions) -> Self {
        let (capacity, patience) = (options.capacity, store.patience());
        Self {
            keys: Keys::new(&options, patience),
            store,
            options,
            feed: Feed::default(),
            versions: Versions::default(),
            projects: Cached::new("project", capacity, patience),
            reached: Cached::new("reached_project", capacity, patience),
            routers: Cached::new("router", capacity, patience),
            catalogs: Cached::new("catalog", capacity, patience),
            endpoints: Cached::new("endpoint", capacity, patience),
            deleted_projects: DeletedProjects::default(),
        }
    }

    pub fn now(&self) -> Timestamp {
        self.store.clock().now()
    }

    /// Frees the memory of the endpoints, with their secrets, of deleted projects.
    pub async fn forget_deleted(&self, now: Instant) {
        let Some(deleted) = self.deleted_projects.due(now) else { return };
        let is_deleted = |entry: &Option<Arc<EndpointEntry>>| {
            entry.as_ref().is_some_and(|entry| deleted.has(entry.endpoint.fixed.project))
        };
        self.endpoints.forget(is_deleted).await;
    }

    pub async fn project(&self, id: ProjectId) -> Result<Option<Arc<Project>>> {
        let load = || async move {
            Ok((projects::load(self.store.read(), id).await?.map(Arc::new), None))
        };
        self.projects.get(id, &self.versions, self.now(), load).await
    }

    /// The endpoint, and the time until which this entry may be used: when one of its secrets
    /// expires.
    pub async fn load_endpoint(
        &self,
        id: EndpointId,
    ) -> Result<(Option<Arc<EndpointEntry>>, Option<Timestamp>)> {
        let store = &self.store;
        let Some((endpoint, has_values)) =
            endpoints::load(store.read(), store.master_keys(), id).await?
        else {
            return Ok((None, None));
        };
        // A project never changes its organization. If it is not known here yet, the change that
        // created it precedes the one that created its endpoint, which then is loaded again.
        let Some(project) = self.project(endpoint.fixed.project).await? else {
            return Ok((None, None));
        };
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
                organization: project.fixed.organization,
                endpoint,
                secrets,
                is_readable,
            })),
            until,
        ))
    }
}
