//! API keys: what is cached of them, and who waits for what is not.
//!
//! Keys that exist, by what is known of all ids, wait in a line of their own: however many invented
//! ones are asked about, they are loaded at once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use outrider_model::{
    ApiKeyId, Error, HashedToken, Principal, Reason, Result, Timestamp, principal::Actor,
};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    Directory, Inner,
    cached::{Cached, Versions},
    ids::{Ids, Standing},
};
use crate::{ChangeAction, DirectoryOptions, Store, api_keys};

/// Keys that do not exist and are remembered as such. They have a share of their own: invented keys
/// displace no others.
const UNKNOWN: u64 = 10_000;
/// Keys that are loaded at once, of each line; further ones wait, and leave the connections to the
/// database to others.
const LOADS: usize = 4;
/// Keys of each line that are asked about at once; more are refused as overload, so that a flood of
/// invented keys never makes a caller wait for long.
const QUESTIONS: usize = 1_024;

/// What a token is checked against.
struct Entry {
    hash: Vec<u8>,
    expires_at: Option<Timestamp>,
    principal: Principal,
}

/// The keys of a directory.
pub(super) struct Keys {
    pub ids: Ids,
    entries: Cached<ApiKeyId, Option<Arc<Entry>>>,
    unknown: Cached<ApiKeyId, ()>,
    /// Of those that exist.
    listed: Line,
    /// Of those that may not.
    others: Line,
}

/// Those who wait for the database.
struct Line {
    questions: Semaphore,
    loads: Semaphore,
}

impl Line {
    fn new() -> Self {
        Self { questions: Semaphore::new(QUESTIONS), loads: Semaphore::new(LOADS) }
    }

    /// A place in it, which is refused when it is too long.
    fn join(&self) -> Result<SemaphorePermit<'_>> {
        let too_many =
            |_| Error::overloaded("too many API keys that are not known here are asked about");
        self.questions.try_acquire().map_err(too_many)
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
            listed: Line::new(),
            others: Line::new(),
        }
    }

    /// What is kept, and about how many of it.
    pub fn entries(&self) -> [(&'static str, u64); 3] {
        [self.entries.entries(), self.unknown.entries(), ("key_id", self.ids.entries())]
    }

    /// Begins anew.
    pub fn clear(&self) {
        self.entries.clear();
        self.unknown.clear();
        self.ids.forget();
    }

    /// A key has changed.
    pub async fn apply(&self, id: ApiKeyId, action: Option<ChangeAction>, version: u64) {
        self.entries.invalidate(id, version).await;
        self.unknown.invalidate(id, version).await;
        match action {
            Some(ChangeAction::Create) => self.ids.add(id),
            Some(ChangeAction::Delete) => self.ids.remove(id),
            Some(ChangeAction::Update) | None => {}
        }
    }

    /// Loads a key, in this line.
    async fn load(
        &self,
        id: ApiKeyId,
        line: &Line,
        store: &Store,
        versions: &Versions,
    ) -> Result<Arc<Entry>> {
        if let Some(entry) = self.entries.load(id, versions, || line.load(store, id)).await? {
            return Ok(entry);
        }
        // What others found meanwhile is read again when it is asked for.
        if let Some((None, began)) = self.entries.take(id).await {
            self.unknown.put(id, (), began).await;
        }
        Err(invalid())
    }
}

impl Directory {
    /// The principal of a token. Errors: `INVALID_CREDENTIALS` when it is unknown, wrong, revoked,
    /// expired or its project is gone; `UNAVAILABLE` when nobody can tell.
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
}

impl Inner {
    /// The key, or `INVALID_CREDENTIALS` when there is none.
    async fn key(&self, id: ApiKeyId) -> Result<Arc<Entry>> {
        match self.keys.entries.find(id, &self.versions, self.now()).await {
            Some(entry) => entry.ok_or_else(invalid),
            // Boxed: it is rare, and would make every future of the hot path as large.
            None => Box::pin(self.look_up(id)).await,
        }
    }

    async fn look_up(&self, id: ApiKeyId) -> Result<Arc<Entry>> {
        let Self { keys, store, versions, .. } = self;
        let standing = keys.ids.standing(id, self.now());
        match standing {
            Standing::Listed => return keys.load(id, &keys.listed, store, versions).await,
            Standing::Unlisted => return Err(invalid()),
            Standing::Recent | Standing::Unknown => {}
        }
        if keys.unknown.has(id, versions).await {
            return Err(invalid());
        }
        if standing == Standing::Unknown {
            return keys.load(id, &keys.others, store, versions).await;
        }
        // Whoever made it was told of it after it was in the feed.
        let _place = keys.others.join()?;
        let (asked, began) = (Instant::now(), versions.current());
        self.poll_for(asked).await?;
        match keys.ids.standing(id, self.now()) {
            Standing::Listed => keys.load(id, &keys.listed, store, versions).await,
            // They were forgotten meanwhile.
            Standing::Unknown => keys.load(id, &keys.others, store, versions).await,
            Standing::Recent | Standing::Unlisted => {
                keys.unknown.put(id, (), began).await;
                Err(invalid())
            }
        }
    }
}

#[cfg(test)]
impl Directory {
    /// Nobody reads the feed while this lives.
    pub(crate) async fn without_feed(&self) -> impl Send + '_ {
        self.inner.feed.held().await
    }

    /// The ids of keys that are known.
    pub(crate) fn key_ids(&self) -> u64 {
        self.inner.keys.ids.entries()
    }
}

fn invalid() -> Error {
    Error::new(Reason::InvalidCredentials, "the API key is not valid")
}

async fn load(store: &Store, id: ApiKeyId) -> Result<Option<Arc<Entry>>> {
    let Some((key, hash)) = api_keys::load(store.read(), id).await? else { return Ok(None) };
    let principal = Principal {
        organization: key.organization,
        project: key.project,
        owner: None,
        actor: Actor::ApiKey(id),
        scopes: key.scopes,
    };
    Ok(Some(Arc::new(Entry { hash, expires_at: key.expires_at, principal })))
}
