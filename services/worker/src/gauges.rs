//! Gauges of the state of a worker.

use std::sync::Arc;

use outrider_telemetry::{
    catalog::worker::{
        IDLE_CONNECTIONS, JOBS, NARROW_WINDOWS, PAYLOAD_BYTES, SLOTS_USED, UNREPORTED_BYTES,
        WAITING, WINDOWS,
    },
    metrics,
};

use crate::shared::Shared;

/// Updates the gauges at each scrape, for as long as the worker lives.
pub(crate) fn expose(shared: &Arc<Shared>) {
    let shared = Arc::downgrade(shared);
    metrics::before_scrape(move || {
        let Some(shared) = shared.upgrade() else { return false };
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        JOBS.set(count(shared.leases.len()));
        IDLE_CONNECTIONS.set(count(shared.client.idle()));
        SLOTS_USED.set(i64::from(shared.slots.used()));
        PAYLOAD_BYTES.set(i64::from(shared.payloads.used()) * 1024);
        UNREPORTED_BYTES.set(i64::from(shared.answers.used()) * 1024);
        WAITING.with_label_values(&["slots"]).set(count(shared.slots.waiting()));
        WAITING.with_label_values(&["payload-bytes"]).set(count(shared.payloads.waiting()));
        let (known, narrow) = shared.slots.windows();
        WINDOWS.set(count(known));
        NARROW_WINDOWS.set(count(narrow));
        true
    });
}
