//! The database, and the directory of configuration that is kept in memory.

use crate::metrics::{seconds, section};

section! {
    "store" {
        /// Connections of this process to the database, by state (used, idle).
        CONNECTIONS: IntGaugeVec("outrider_store_connections", ["state"]);
        /// Connections that this process may have at most.
        CONNECTIONS_MAX: IntGauge("outrider_store_connections_max");
        /// Time that commits of events and reports waited for a connection.
        ACQUIRE_SECONDS: Histogram("outrider_store_acquire_seconds", seconds);
        /// Statements that failed: data (the database refuses a row) or unavailable (anything
        /// else).
        ERRORS: IntCounterVec("outrider_store_errors_total", ["kind"]);
        /// Whether the database refused something of the work of this process the last time it was
        /// asked (0 or 1), by probe (configuration_read, configuration_write, jobs, publish,
        /// settle, feed, retry, tails, sweep, audit, session, partitions).
        PROBE_REFUSED: IntGaugeVec("outrider_store_probe_refused", ["probe"]);
        /// Days after today of which every table of PostgreSQL has a partition, 7 at most. Always 7
        /// on SQLite, which has none.
        PARTITIONS_AHEAD: IntGauge("outrider_store_partitions_ahead");
        /// Look-ups in the directory, by kind (key, project, router, catalogue, endpoint) and
        /// result (hit, miss).
        DIRECTORY_LOOKUPS: IntCounterVec("outrider_directory_lookups_total", ["kind", "result"]);
        /// Entries of the directory, by kind (key, unknown_key, key_id, project, router, endpoint).
        DIRECTORY_ENTRIES: IntGaugeVec("outrider_directory_entries", ["kind"]);
    }
}
