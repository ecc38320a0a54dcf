//! What the store shows of itself: its connections, and how much the directory keeps.

use std::sync::Arc;

use outrider_migrations::partitions::DAYS_AHEAD;
use outrider_telemetry::{
    catalogue::store::{
        CONNECTIONS, CONNECTIONS_MAX, DIRECTORY_ENTRIES, ERRORS, PARTITIONS_AHEAD, PROBE_REFUSED,
        SECTION,
    },
    metrics,
};

use crate::probes;

/// The pools of a store.
pub(crate) trait Pools: Send + Sync + 'static {
    /// How many connections each has, and how many of them nobody uses.
    fn pools(&self) -> Vec<(u32, usize)>;
}

/// How many entries each kind of the directory's caches has.
pub(crate) trait Entries: Send + Sync + 'static {
    fn entries(&self) -> Vec<(&'static str, u64)>;
}

/// Shows the use of the pools for as long as the store lives.
pub(crate) fn expose_pools<P: Pools>(pools: &Arc<P>, most: u32) {
    metrics::expose(&SECTION);
    CONNECTIONS_MAX.set(i64::from(most));
    for kind in ["data", "unavailable"] {
        ERRORS.with_label_values(&[kind]);
    }
    for probe in probes::names() {
        PROBE_REFUSED.with_label_values(&[probe]);
    }
    // Until it is counted, as on SQLite, which has none, there is no alarm.
    PARTITIONS_AHEAD.set(DAYS_AHEAD);
    let pools = Arc::downgrade(pools);
    metrics::before_scrape(move || {
        let Some(pools) = pools.upgrade() else { return false };
        let (mut used, mut unused) = (0, 0);
        for (size, idle) in pools.pools() {
            let idle = i64::try_from(idle).unwrap_or(i64::MAX);
            unused += idle;
            used += i64::from(size).saturating_sub(idle).max(0);
        }
        CONNECTIONS.with_label_values(&["idle"]).set(unused);
        CONNECTIONS.with_label_values(&["used"]).set(used);
        true
    });
}

/// Shows the size of the directory for as long as it lives.
pub(crate) fn expose_directory<E: Entries>(directory: &Arc<E>) {
    let directory = Arc::downgrade(directory);
    metrics::before_scrape(move || {
        let Some(directory) = directory.upgrade() else { return false };
        for (kind, entries) in directory.entries() {
            DIRECTORY_ENTRIES
                .with_label_values(&[kind])
                .set(i64::try_from(entries).unwrap_or(i64::MAX));
        }
        true
    });
}
