//! A short-lived cache of answers about API keys.
//!
//! Valid and invalid keys each have a part of the cache. Known keys, new keys and all others each
//! have a part of the lookups in flight. So a flood of invented keys neither evicts a valid key nor
//! delays its next lookup.
//!
//! The id of a key contains the time of its creation. A role refuses an old key that does not exist
//! from memory, but it may have to query the database for a new one. So new keys have a separate
//! part of the lookups.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use moka::future::Cache;
use outrider_model::{Error, HashedToken, Principal, Reason, Result};
use outrider_telemetry::{
    catalog::gateway::{KEY_LOOKUPS, KEYS},
    metrics::{self, IntCounter},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::principal::invalid;
use crate::guard::auth::Authenticate;

/// How long a key counts as known after it was valid, even if its answer is no longer used.
const KNOWN_FOR: Duration = Duration::from_secs(3600);
/// Maximum age of an answer that is used while no role is available. The role that serves a request
/// checks its key anyway.
const OUTAGE: Duration = Duration::from_secs(60);
/// How long a lookup may wait for its turn.
const TURN: Duration = Duration::from_secs(2);
/// A key is new if it was created less than this long ago. A creation time in the future counts the
/// same way, because the clocks of two hosts differ by less than this.
const NEW: Duration = Duration::from_secs(5 * 60);

/// Bounds of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyCacheOptions {
    /// How long an answer is used. Default: 4 s.
    pub lifetime: Duration,
    /// Maximum number of cached valid keys. Default: 100,000.
    pub valid: u64,
    /// Maximum number of cached invalid keys. Default: 10,000.
    pub invalid: u64,
    /// Maximum number of lookups in flight for known keys. The same number applies to keys that
    /// were created within the last 5 minutes, and to all others. Default: 64.
    pub questions: usize,
}

impl Default for KeyCacheOptions {
    fn default() -> Self {
        Self { lifetime: Duration::from_secs(4), valid: 100_000, invalid: 10_000, questions: 64 }
    }
}

/// Authenticates by cached answers, each of which is used for a bounded time.
pub struct RememberedKeys {
    inner: Arc<dyn Authenticate>,
    pub(super) valid: Cache<HashedToken, Principal>,
    pub(super) invalid: Cache<HashedToken, ()>,
    /// Keys that were valid at their last lookup, and its time.
    known: Cache<HashedToken, Known>,
    of_known: Semaphore,
    of_others: Semaphore,
    of_new: Semaphore,
    hits: IntCounter,
    misses: IntCounter,
    /// Counts old answers that were used because no role was available.
    kept_on: IntCounter,
}

#[derive(Clone)]
struct Known {
    principal: Principal,
    at: Instant,
}

impl RememberedKeys {
    /// Caches the answers of `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Authenticate>, options: &KeyCacheOptions) -> Arc<Self> {
        let questions = || Semaphore::new(options.questions.clamp(1, Semaphore::MAX_PERMITS));
        let keys = Arc::new(Self {
            inner,
            valid: Cache::builder()
                .max_capacity(options.valid)
                .time_to_live(options.lifetime)
                .build(),
            invalid: Cache::builder()
                .max_capacity(options.invalid)
                .time_to_live(options.lifetime)
                .build(),
            known: Cache::builder().max_capacity(options.valid).time_to_live(KNOWN_FOR).build(),
            of_known: questions(),
            of_others: questions(),
            of_new: questions(),
            hits: KEY_LOOKUPS.with_label_values(&["hit"]),
            misses: KEY_LOOKUPS.with_label_values(&["miss"]),
            kept_on: KEY_LOOKUPS.with_label_values(&["outage"]),
        });
        let shown = Arc::downgrade(&keys);
        metrics::before_scrape(move || {
            let Some(keys) = shown.upgrade() else { return false };
            for (share, count) in
                [("valid", keys.valid.entry_count()), ("invalid", keys.invalid.entry_count())]
            {
                KEYS.with_label_values(&[share]).set(i64::try_from(count).unwrap_or(i64::MAX));
            }
            true
        });
        keys
    }

    async fn ask(&self, token: &HashedToken) -> Result<Principal> {
        let known = self.known.get(token).await;
        let turns = match known {
            Some(_) => &self.of_known,
            None if is_new(token) => &self.of_new,
            None => &self.of_others,
        };
        match self.ask_in_turn(token, turns).await {
            Ok(principal) => {
                let known = Known { principal: principal.clone(), at: Instant::now() };
                self.known.insert(*token, known).await;
                Ok(principal)
            }
            Err(error) if error.reason == Reason::InvalidCredentials => {
                self.known.invalidate(token).await;
                self.invalid.insert(*token, ()).await;
                Err(error)
            }
            Err(error) => match known.filter(|known| known.at.elapsed() <= OUTAGE) {
                Some(known) => {
                    self.kept_on.inc();
                    Ok(known.principal)
                }
                None => Err(error),
            },
        }
    }

    async fn ask_in_turn(&self, token: &HashedToken, turns: &Semaphore) -> Result<Principal> {
        let full = || Error::overloaded("too many API keys are being checked");
        let _turn =
            timeout(TURN, turns.acquire()).await.map_err(|_| full())?.map_err(|_| full())?;
        self.inner.authenticate(token).await
    }
}

fn is_new(token: &HashedToken) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let made = Duration::from_micros(u64::try_from(token.id.time().0).unwrap_or(0));
    now.abs_diff(made) < NEW
}

#[async_trait]
impl Authenticate for RememberedKeys {
    async fn authenticate(&self, token: &HashedToken) -> Result<Principal> {
        if let Some(principal) = self.valid.get(token).await {
            self.hits.inc();
            return Ok(principal);
        }
        if self.invalid.get(token).await.is_some() {
            self.hits.inc();
            return Err(invalid());
        }
        self.misses.inc();
        // Concurrent requests for one key share one lookup.
        self.valid
            .try_get_with(*token, self.ask(token))
            .await
            .map_err(|error: Arc<Error>| (*error).clone())
    }
}
