//! A bounded cache that never returns an entry that is older than a change already seen.
//!
//! Each load notes the version of the cache before it reads. Each change increments the version and
//! marks its key with the new one. An entry is valid only if its load began at or after the mark of
//! its key. So a load that read before a change and ends after it leaves an entry that nobody uses.

use std::{
    future::Future,
    hash::{BuildHasher, Hash, RandomState},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use moka::future::Cache;
use outrider_model::{Error, Result, Timestamp};
use outrider_telemetry::{catalog::store::DIRECTORY_LOOKUPS, metrics::IntCounter};

use crate::connection::patience;

/// Number of marks of a cache. Keys that share a mark are merely loaded more often than necessary.
const MARKS: usize = 1 << 14;

/// The number of changes seen. Shared by all caches of a directory.
#[derive(Default)]
pub(super) struct Versions {
    current: AtomicU64,
    /// Entries that were loaded before this version are invalid.
    floor: AtomicU64,
}

impl Versions {
    /// The version of a change that is being applied.
    pub fn next(&self) -> u64 {
        self.current.fetch_add(1, SeqCst) + 1
    }

    /// The version of the last change seen, at which a load begins.
    pub fn current(&self) -> u64 {
        self.current.load(SeqCst)
    }

    /// Makes everything that was loaded so far invalid.
    pub fn drop_everything(&self) {
        self.floor.fetch_max(self.next(), SeqCst);
    }
}

#[derive(Clone)]
struct Loaded<V> {
    value: V,
    /// The version before it was read.
    began: u64,
    /// The time from which it is stale even without a change.
    until: Option<Timestamp>,
}

pub(super) struct Cached<K, V> {
    /// The kind of entries, for the metrics.
    kind: &'static str,
    hits: IntCounter,
    misses: IntCounter,
    entries: Cache<K, Loaded<V>>,
    marks: Box<[AtomicU64]>,
    hasher: RandomState,
    /// How long a load may take.
    patience: Duration,
}

impl<K, V> Cached<K, V>
where
    K: Copy + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub fn new(kind: &'static str, capacity: u64, patience: Duration) -> Self {
        let looked_up = |result| DIRECTORY_LOOKUPS.with_label_values(&[kind, result]);
        Self {
            kind,
            hits: looked_up("hit"),
            misses: looked_up("miss"),
            entries: Cache::new(capacity),
            marks: (0..MARKS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
            patience,
        }
    }

    /// The kind of entries and their approximate number.
    pub fn entries(&self) -> (&'static str, u64) {
        (self.kind, self.entries.entry_count())
    }

    /// The entry from the cache, or from `load`, which also returns the time until which it may be
    /// used. Concurrent calls share one load.
    pub async fn get<F>(
        &self,
        key: K,
        versions: &Versions,
        now: Timestamp,
        load: impl Fn() -> F,
    ) -> Result<V>
    where
        F: Future<Output = Result<(V, Option<Timestamp>)>>,
    {
        if let Some(value) = self.find(key, versions, now).await {
            return Ok(value);
        }
        // Boxed: it is rare, and would enlarge every future of the hot path.
        Box::pin(self.load(key, versions, load)).await
    }

    /// The entry from the cache, if there is a valid one.
    pub async fn find(&self, key: K, versions: &Versions, now: Timestamp) -> Option<V> {
        let needed = self.needed(&key, versions);
        if let Some(loaded) = self.entries.get(&key).await {
            if loaded.began >= needed && loaded.until.is_none_or(|until| until > now) {
                self.hits.inc();
                return Some(loaded.value);
            }
            self.entries.invalidate(&key).await;
        }
        self.misses.inc();
        None
    }

    /// Loads the entry if none was found. Concurrent calls share one load.
    pub async fn load<F>(&self, key: K, versions: &Versions, load: impl Fn() -> F) -> Result<V>
    where
        F: Future<Output = Result<(V, Option<Timestamp>)>>,
    {
        let needed = self.needed(&key, versions);
        let is_own = AtomicBool::new(false);
        loop {
            let init = async {
                is_own.store(true, SeqCst);
                let began = versions.current();
                let (value, until) = patience::within(self.patience, load()).await?;
                Ok(Loaded { value, began, until })
            };
            let loaded = match self
                .entries
                .try_get_with(key, init)
                .await
                .map_err(|error: Arc<Error>| (*error).clone())
            {
                // The used-up share belongs to another caller, whose load this call joined.
                Err(error) if error.is_overload() && !is_own.load(SeqCst) => continue,
                loaded => loaded?,
            };
            if loaded.began >= needed {
                return Ok(loaded.value);
            }
            // This call joined a load that began before the change. The next one begins after it.
            self.entries.invalidate(&key).await;
        }
    }

    /// Whether there is a valid entry. Loads nothing, and does not count as a look-up.
    pub async fn has(&self, key: K, versions: &Versions) -> bool {
        let needed = self.needed(&key, versions);
        self.entries.get(&key).await.is_some_and(|loaded| loaded.began >= needed)
    }

    /// Removes an entry and returns its value, and the version at which its load began.
    pub async fn take(&self, key: K) -> Option<(V, u64)> {
        self.entries.remove(&key).await.map(|loaded| (loaded.value, loaded.began))
    }

    /// Adds an entry from another cache, whose load began at this version.
    pub async fn put(&self, key: K, value: V, began: u64) {
        self.entries.insert(key, Loaded { value, began, until: None }).await;
    }

    /// Makes what was loaded for `key` before `version` invalid.
    pub async fn invalidate(&self, key: K, version: u64) {
        self.mark(&key).fetch_max(version, SeqCst);
        self.entries.invalidate(&key).await;
    }

    /// Removes the entries for which the predicate holds, and frees their memory.
    pub async fn forget(&self, is_unused: impl Fn(&V) -> bool) {
        let unused: Vec<K> = self
            .entries
            .iter()
            .filter(|(_, loaded)| is_unused(&loaded.value))
            .map(|(key, _)| *key)
            .collect();
        for key in unused {
            self.entries.invalidate(&key).await;
        }
        // Otherwise the memory is kept until the cache is used again.
        self.entries.run_pending_tasks().await;
    }

    /// Removes all entries.
    pub fn clear(&self) {
        self.entries.invalidate_all();
    }

    /// The version at which a load must have begun.
    fn needed(&self, key: &K, versions: &Versions) -> u64 {
        self.mark(key).load(SeqCst).max(versions.floor.load(SeqCst))
    }

    fn mark(&self, key: &K) -> &AtomicU64 {
        let index = self.hasher.hash_one(key) as usize % MARKS;
        &self.marks[index]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Notify;

    use super::*;

    const NOW: Timestamp = Timestamp(0);

    #[tokio::test]
    async fn a_load_that_read_before_a_change_does_not_outlive_it() {
        let (cached, versions) =
            (Cached::<u8, &str>::new("test", 10, Duration::from_secs(9)), Versions::default());
        let (has_read, may_end) = (Notify::new(), Notify::new());
        let slow = cached.get(1, &versions, NOW, || async {
            has_read.notify_one();
            may_end.notified().await;
            Ok(("old", None))
        });
        let change = async {
            has_read.notified().await;
            cached.invalidate(1, versions.next()).await;
            // A call after the change joins the slow load, but must not use its result.
            let late = cached.get(1, &versions, NOW, || async { Ok(("new", None)) });
            may_end.notify_one();
            late.await.unwrap()
        };
        let (old, late) = tokio::join!(slow, change);
        // A call before the change may get either.
        assert_eq!(old.unwrap(), "old");
        assert_eq!(late, "new");
        assert_eq!(
            cached.get(1, &versions, NOW, || async { Ok(("newer", None)) }).await.unwrap(),
            "new"
        );
    }

    #[tokio::test]
    async fn many_who_ask_at_once_load_once_and_errors_are_not_kept() {
        let (cached, versions, loads) = (
            Cached::<u8, u8>::new("test", 10, Duration::from_secs(9)),
            Versions::default(),
            AtomicUsize::new(0),
        );
        let failing = cached.get(1, &versions, NOW, || async { Err(Error::internal("no")) }).await;
        assert!(failing.is_err());
        let ask = || {
            cached.get(1, &versions, NOW, || async {
                loads.fetch_add(1, SeqCst);
                tokio::task::yield_now().await;
                Ok((7, None))
            })
        };
        let answers = futures::future::join_all((0..50).map(|_| ask())).await;
        assert!(answers.into_iter().all(|answer| answer.unwrap() == 7));
        assert_eq!(loads.load(SeqCst), 1);
    }

    #[tokio::test]
    async fn who_joined_a_load_of_another_is_not_refused_for_it() {
        let (cached, versions) =
            (Cached::<u8, u8>::new("test", 10, Duration::from_secs(9)), Versions::default());
        let (began, may_end) = (Notify::new(), Notify::new());
        let refused = cached.get(1, &versions, NOW, || async {
            began.notify_one();
            may_end.notified().await;
            Err(Error::share_exhausted("its share"))
        });
        let joined = async {
            began.notified().await;
            let joined = cached.get(1, &versions, NOW, || async { Ok((7, None)) });
            may_end.notify_one();
            joined.await
        };
        let (refused, joined) = tokio::join!(refused, joined);
        assert!(refused.is_err_and(|error| error.is_overload()));
        assert_eq!(joined.unwrap(), 7);
    }

    #[tokio::test]
    async fn what_is_old_by_itself_or_was_dropped_is_loaded_again() {
        let (cached, versions, loads) = (
            Cached::<u8, usize>::new("test", 10, Duration::from_secs(9)),
            Versions::default(),
            AtomicUsize::new(0),
        );
        let ask = |now| {
            cached.get(1, &versions, now, || async {
                Ok((loads.fetch_add(1, SeqCst), Some(Timestamp(10))))
            })
        };
        assert_eq!((ask(NOW).await.unwrap(), ask(Timestamp(9)).await.unwrap()), (0, 0));
        assert_eq!(ask(Timestamp(10)).await.unwrap(), 1);
        versions.drop_everything();
        assert_eq!((ask(NOW).await.unwrap(), ask(NOW).await.unwrap()), (2, 2));
    }
}
