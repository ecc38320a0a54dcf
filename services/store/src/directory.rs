//! The directory: the bounded cache of configuration that the hot path reads. Loaded on demand, kept fresh by the change feed.

use std::{sync::Arc, time::Duration};

use outrider_model::{Endpoint, EndpointId, Principal, Project, ProjectId, Result, Router, SigningSecret, Token};

/// How the directory behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryOptions {
    /// Entries kept of each kind.
    pub capacity: u64,
    /// How often the change feed is polled.
    pub poll: Duration,
    /// How long entries are trusted while the feed cannot be read.
    pub max_stale: Duration,
}

/// What a worker needs of an endpoint.
#[derive(Debug)]
pub struct EndpointEntry {
    pub endpoint: Endpoint,
    /// All that sign: the newest first.
    pub secrets: Vec<SigningSecret>,
}

/// A cheap handle to the cache.
#[derive(Clone)]
pub struct Directory;

impl Directory {
    /// The principal of a token: `InvalidCredentials` when it is unknown, wrong, revoked or expired.
    pub async fn principal(&self, _token: &Token) -> Result<Principal> {
        unimplemented!()
    }
    /// The project, when the principal reaches it; else `NotFound`.
    pub async fn project(&self, _principal: &Principal, _id: ProjectId) -> Result<Arc<Project>> {
        unimplemented!()
    }
    /// Whether a project exists (deleted ones do not), whoever asks.
    pub async fn project_exists(&self, _id: ProjectId) -> Result<bool> {
        unimplemented!()
    }
    /// The compiled subscriptions of a project.
    pub async fn router(&self, _project: ProjectId) -> Result<Arc<Router>> {
        unimplemented!()
    }
    /// An endpoint; none when it does not exist or was deleted.
    pub async fn endpoint(&self, _id: EndpointId) -> Result<Option<Arc<EndpointEntry>>> {
        unimplemented!()
    }
    /// Reads the change feed now, as after an announcement.
    pub async fn refresh(&self) -> Result<()> {
        unimplemented!()
    }
    /// Keeps the cache fresh until dropped: polls the feed.
    pub async fn run(&self) {
        unimplemented!()
    }
}
