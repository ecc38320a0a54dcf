//! What the store shows of itself: its connections, and how much the directory keeps.

use std::sync::Arc;

use outrider_telemetry::{
    catalogue::store::{CONNECTIONS, CONNECTIONS_MAX, DIRECTORY_ENTRIES, ERRORS, SECTION},
    metrics,
};
use sea_orm::DatabaseConnection;

use crate::Backend;

/// The pools of a store; both are one on PostgreSQL.
pub(crate) trait Pools: Send + Sync + 'static {
    fn backend(&self) -> Backend;
    fn read(&self) -> &DatabaseConnection;
    fn write(&self) -> &DatabaseConnection;
}

/// How many entries each kind of the directory's caches has.
pub(crate) trait Entries: Send + Sync + 'static {
    fn entries(&self) -> [(&'static str, u64); 4];
}

/// Shows the use of the pools for as long as the store lives.
pub(crate) fn expose_pools<P: Pools>(pools: &Arc<P>, most: u32) {
    metrics::expose(&SECTION);
    CONNECTIONS_MAX.set(i64::from(most));
    for kind in ["data", "unavailable"] {
        ERRORS.with_label_values(&[kind]);
    }
    let pools = Arc::downgrade(pools);
    metrics::before_scrape(move || {
        let Some(pools) = pools.upgrade() else { return false };
        let (size, idle) = connections(pools.as_ref());
        CONNECTIONS.with_label_values(&["idle"]).set(idle);
        CONNECTIONS.with_label_values(&["used"]).set((size - idle).max(0));
        true
    });
}

/// All of them, and those that nobody uses.
fn connections(pools: &impl Pools) -> (i64, i64) {
    let idle = |idle: usize| i64::try_from(idle).unwrap_or(i64::MAX);
    match pools.backend() {
        Backend::Postgres => {
            let pool = pools.read().get_postgres_connection_pool();
            (i64::from(pool.size()), idle(pool.num_idle()))
        }
        Backend::Sqlite => {
            let (read, write) = (pools.read().get_sqlite_connection_pool(), pools.write().get_sqlite_connection_pool());
            (i64::from(read.size()) + i64::from(write.size()), idle(read.num_idle() + write.num_idle()))
        }
    }
}

/// Shows the size of the directory for as long as it lives.
pub(crate) fn expose_directory<E: Entries>(directory: &Arc<E>) {
    let directory = Arc::downgrade(directory);
    metrics::before_scrape(move || {
        let Some(directory) = directory.upgrade() else { return false };
        for (kind, entries) in directory.entries() {
            DIRECTORY_ENTRIES.with_label_values(&[kind]).set(i64::try_from(entries).unwrap_or(i64::MAX));
        }
        true
    });
}
