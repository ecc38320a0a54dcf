//! Finds the principal of a token.

use std::{sync::Arc, time::Instant};

use outrider_model::{ApiKeyId, HashedToken, Principal, Result};

use super::{
    ids::KeyStatus,
    inner::Inner,
    keys::{Entry, invalid},
};

impl Inner {
    /// See [`super::Directory::principal`].
    pub async fn principal(&self, token: &HashedToken) -> Result<Principal> {
        self.trust().await?;
        let entry = self.key(token.id).await?;
        let expired = entry.expires_at.is_some_and(|at| at <= self.now());
        if !token.matches(&entry.hash) || expired {
            return Err(invalid());
        }
        if let Some(project) = entry.principal.project
            && self.project(project).await?.is_none()
        {
            return Err(invalid());
        }
        Ok(entry.principal.clone())
    }

    /// The key, or `INVALID_CREDENTIALS` if there is none.
    async fn key(&self, id: ApiKeyId) -> Result<Arc<Entry>> {
        match self.keys.entries.find(id, &self.versions, self.now()).await {
            Some(entry) => entry.ok_or_else(invalid),
            // Boxed: it is rare, and would enlarge every future of the hot path.
            None => Box::pin(self.look_up(id)).await,
        }
    }

    async fn look_up(&self, id: ApiKeyId) -> Result<Arc<Entry>> {
        let Self { keys, store, versions, .. } = self;
        let status = keys.ids.status(id, self.now());
        match status {
            KeyStatus::Listed => return keys.load(id, &keys.listed, store, versions).await,
            KeyStatus::Unlisted => return Err(invalid()),
            KeyStatus::Recent | KeyStatus::Unknown => {}
        }
        if keys.unknown.has(id, versions).await {
            return Err(invalid());
        }
        if status == KeyStatus::Unknown {
            return keys.load(id, &keys.others, store, versions).await;
        }
        // The creation of a key is answered after it is in the feed, so one reading decides.
        let _place = keys.others.join()?;
        let (asked, began) = (Instant::now(), versions.current());
        self.poll_for(asked).await?;
        match keys.ids.status(id, self.now()) {
            KeyStatus::Listed => keys.load(id, &keys.listed, store, versions).await,
            // The ids were dropped meanwhile.
            KeyStatus::Unknown => keys.load(id, &keys.others, store, versions).await,
            KeyStatus::Recent | KeyStatus::Unlisted => {
                keys.unknown.put(id, (), began).await;
                Err(invalid())
            }
        }
    }
}
