//! The cache of API keys, and the queues for keys that it lacks.
//!
//! Keys that exist, according to the list of all ids, have a queue of their own. So they are loaded
//! immediately, however many invented keys callers ask about.

use std::{sync::Arc, time::Duration};

use outrider_model::{ApiKeyId, Error, Principal, Reason, Result, Timestamp, principal::Actor};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    cached::{Cached, Versions},
    ids::Ids,
    options::DirectoryOptions,
};
use crate::{ChangeAction, Store, configuration::api_keys};

/// Maximum number of keys that are remembered as not existing. They have a cache of their own, so
/// that invented keys displace no others.
const UNKNOWN: u64 = 10_000;
/// Number of keys that each queue loads at once. Further ones wait, and leave connections to the
/// database for others.
const LOADS: usize = 4;
/// Maximum length of each queue. Further calls are refused as overload, so that a flood of invented
/// keys never makes a caller wait for long.
const WAITING: usize = 1_024;

/// The data that a token is checked against.
pub(super) struct Entry {
    pub hash: Vec<u8>,
    pub expires_at: Option<Timestamp>,
    pub principal: Principal,
}

/// The keys of a directory.
pub(super) struct Keys {
    pub ids: Ids,
    pub entries: Cached<ApiKeyId, Option<Arc<Entry>>>,
    pub unknown: Cached<ApiKeyId, ()>,
    /// For keys that exist.
    pub listed: LoadQueue,
    /// For keys that may not exist.
    pub others: LoadQueue,
}

/// A queue of calls that wait for a key to be loaded.
pub(super) struct LoadQueue {
    waiting: Semaphore,
    loads: Semaphore,
}

impl LoadQueue {
    fn new() -> Self {
        Self { waiting: Semaphore::new(WAITING), loads: Semaphore::new(LOADS) }
    }

    /// Joins the queue, unless it is too long.
    pub fn join(&self) -> Result<SemaphorePermit<'_>> {
        let too_many =
            |_| Error::overloaded("too many API keys that are not known here are being looked up");
        self.waiting.try_acquire().map_err(too_many)
    }

    async fn load(
        &self,
        store: &Store,
        id: ApiKeyId,
    ) -> Result<(Option<Arc<Entry>>, Option<Timestamp>)> {
        let _place = self.join()?;
        let _turn =
            self.loads.acquire().await.map_err(|_| Error::internal("the directory is closed"))?;
        Ok((load(store, id).await?, None))
    }
}

impl Keys {
    pub fn new(options: &DirectoryOptions, patience: Duration) -> Self {
        Self {
            ids: Ids::new(options.key_ids),
            entries: Cached::new("key", options.capacity, patience),
            unknown: Cached::new("unknown_key", UNKNOWN.min(options.capacity), patience),
            listed: LoadQueue::new(),
            others: LoadQueue::new(),
        }
    }

    /// The kinds of entries and the approximate number of each.
    pub fn entries(&self) -> [(&'static str, u64); 3] {
        [self.entries.entries(), self.unknown.entries(), ("key_id", self.ids.entries())]
    }

    /// Drops everything.
    pub fn clear(&self) {
        self.entries.clear();
        self.unknown.clear();
        self.ids.forget();
    }

    /// Applies a change of a key.
    pub async fn apply(&self, id: ApiKeyId, action: Option<ChangeAction>, version: u64) {
        self.entries.invalidate(id, version).await;
        self.unknown.invalidate(id, version).await;
        match action {
            Some(ChangeAction::Create) => self.ids.add(id),
            Some(ChangeAction::Delete) => self.ids.remove(id),
            Some(ChangeAction::Update) | None => {}
        }
    }

    /// Loads a key in this queue.
    pub async fn load(
        &self,
        id: ApiKeyId,
        queue: &LoadQueue,
        store: &Store,
        versions: &Versions,
    ) -> Result<Arc<Entry>> {
        if let Some(entry) = self.entries.load(id, versions, || queue.load(store, id)).await? {
            return Ok(entry);
        }
        // An entry that others loaded meanwhile is loaded again on demand.
        if let Some((None, began)) = self.entries.take(id).await {
            self.unknown.put(id, (), began).await;
        }
        Err(invalid())
    }
}

pub(super) fn invalid() -> Error {
    Error::new(Reason::InvalidCredentials, "the API key is not valid")
}

async fn load(store: &Store, id: ApiKeyId) -> Result<Option<Arc<Entry>>> {
    let Some((key, hash)) = api_keys::load(store.read(), id).await? else { return Ok(None) };
    let principal = Principal {
        organization: key.fixed.organization,
        project: key.fixed.project,
        owner: None,
        actor: Actor::ApiKey(id),
        scopes: key.spec.scopes,
    };
    Ok(Some(Arc::new(Entry { hash, expires_at: key.spec.expires_at, principal })))
}
