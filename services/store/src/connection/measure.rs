//! Metrics of the connections.

use std::sync::Arc;

use outrider_migrations::partitions::DAYS_AHEAD;
use outrider_telemetry::{
    catalog::store::{
        CONNECTIONS, CONNECTIONS_MAX, ERRORS, PARTITIONS_AHEAD, PROBE_REFUSED, SECTION,
    },
    metrics,
};

use super::probes;

/// The pools of a store.
pub(super) trait Pools: Send + Sync + 'static {
    /// For each pool, the number of its connections and how many of them are idle.
    fn pools(&self) -> Vec<(u32, usize)>;
}

/// Exposes the use of the pools for as long as the store lives.
pub(super) fn expose_pools<P: Pools>(pools: &Arc<P>, most: u32) {
    metrics::expose(&SECTION);
    CONNECTIONS_MAX.set(i64::from(most));
    for kind in ["data", "unavailable"] {
        ERRORS.with_label_values(&[kind]);
    }
    for probe in probes::names() {
        PROBE_REFUSED.with_label_values(&[probe]);
    }
    // No alarm until partitions are counted. On SQLite, which has none, they never are.
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
