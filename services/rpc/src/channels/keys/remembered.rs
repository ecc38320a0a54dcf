//! Answers about API keys, remembered for a moment.
//!
//! Valid and invalid keys have a share of the memory each, and new and known ones a share of the
//! questions under way: a flood of invented keys neither displaces a valid one nor keeps its next
//! question waiting.
//!
//! Of a key that was not known before, its id tells when it was made. A role refuses old ones that
//! do not exist from memory, but may have to look for one that is as new as that. So these have a
//! share of their own.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use moka::future::Cache;
use outrider_model::{Error, HashedToken, Principal, Reason, Result};
use outrider_telemetry::{
    catalogue::gateway::{KEY_LOOKUPS, KEYS},
    metrics::{self, IntCounter},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::principal::invalid;
use crate::guard::auth::Authenticate;

/// How long a key is known to have been valid, after its answer is no longer used.
const KNOWN_FOR: Duration = Duration::from_secs(3600);
/// How old an answer may be that is used while no role can tell. The role that serves a request
/// checks its key all the same.
const OUTAGE: Duration = Duration::from_secs(60);
/// How long a question may wait for its turn.
const TURN: Duration = Duration::from_secs(2);
/// A key that was made so long ago, or will be, is not new. The clocks of two hosts differ by less.
const NEW: Duration = Duration::from_secs(5 * 60);

/// Bounds of the memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyCacheOptions {
    /// How long an answer is used. Default 4 s.
    pub lifetime: Duration,
    /// Valid keys that are remembered. Default 100,000.
    pub valid: u64,
    /// Invalid keys that are remembered. Default 10,000.
    pub invalid: u64,
    /// Questions under way at once about keys that were valid, as many about others, and as many
    /// about those that were made within 5 minutes. Default 64.
    pub questions: usize,
}

impl Default for KeyCacheOptions {
    fn default() -> Self {
        Self { lifetime: Duration::from_secs(4), valid: 100_000, invalid: 10_000, questions: 64 }
    }
}

/// Authenticates by the answers of others, each of which is used for a bounded time.
pub struct RememberedKeys {
    inner: Arc<dyn Authenticate>,
    pub(super) valid: Cache<HashedToken, Principal>,
    pub(super) invalid: Cache<HashedToken, ()>,
    /// Keys that were valid when they were asked about last, and when that was.
    known: Cache<HashedToken, Known>,
    of_known: Semaphore,
    of_others: Semaphore,
    of_new: Semaphore,
    hits: IntCounter,
    misses: IntCounter,
    /// Old answers that were used since no role could tell.
    kept_on: IntCounter,
}

#[derive(Clone)]
struct Known {
    principal: Principal,
    at: Instant,
}

impl RememberedKeys {
    /// Remembers what `inner` says.
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
        // However many ask about one key, one question is under way.
        self.valid
            .try_get_with(*token, self.ask(token))
            .await
            .map_err(|error: Arc<Error>| (*error).clone())
    }
}
