//! Metrics of the directory.

use std::sync::Arc;

use outrider_telemetry::{catalog::store::DIRECTORY_ENTRIES, metrics};

/// The number of entries in each cache, by kind.
pub(super) trait Entries: Send + Sync + 'static {
    fn entries(&self) -> Vec<(&'static str, u64)>;
}

/// Exposes the size of the directory for as long as it lives.
pub(super) fn expose<E: Entries>(directory: &Arc<E>) {
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
