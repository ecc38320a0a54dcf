//! The database, and the directory: the configuration in memory.

use crate::metrics::{seconds, section};

section! {
    "store" {
        /// Connections of this process to the database, by state (used, idle).
        CONNECTIONS: IntGaugeVec("outrider_store_connections", ["state"]);
        /// Maximum number of connections of this process to the database.
        CONNECTIONS_MAX: IntGauge("outrider_store_connections_max");
        /// Time that a commit of events or reports waited for a connection.
        ACQUIRE_SECONDS: Histogram("outrider_store_acquire_seconds", seconds);
        /// Failed statements, by kind: data (the database refuses a row) or unavailable (any other
        /// failure).
        ERRORS: IntCounterVec("outrider_store_errors_total", ["kind"]);
        /// 1 if the database refuses a part of this process's work, by the last check; otherwise 0.
        /// By probe (configuration_read, configuration_write, jobs, publish, settle, feed, retry,
        /// tails, sweep, audit, session, partitions).
        PROBE_REFUSED: IntGaugeVec("outrider_store_probe_refused", ["probe"]);
        /// Number of days after today for which every table of PostgreSQL has a partition, up to 7.
        /// Always 7 on SQLite, which has no partitions.
        PARTITIONS_AHEAD: IntGauge("outrider_store_partitions_ahead");
        /// Lookups in the directory, by kind (key, project, router, catalog, endpoint) and result
        /// (hit, miss).
        DIRECTORY_LOOKUPS: IntCounterVec("outrider_directory_lookups_total", ["kind", "result"]);
        /// Entries of the directory, by kind (key, unknown_key, key_id, project, router, endpoint).
        DIRECTORY_ENTRIES: IntGaugeVec("outrider_directory_entries", ["kind"]);
    }
}
