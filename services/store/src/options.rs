//! How the store is reached, and its bounds.

use std::time::Duration;

use outrider_settings::{Hidden, Invalid, millis, minutes, seconds, section};

use crate::{MasterKeys, check_url};

section! {
    /// Where events, deliveries and configuration are kept.
    pub struct DatabaseOptions in "database" {
        /// `sqlite://PATH` (one process) or `postgres://USER:PASSWORD@HOST:PORT/NAME` (PostgreSQL
        /// 15 or later). For TLS, append `?sslmode=verify-full`, and `&sslrootcert=FILE` to trust
        /// an authority of your own in addition to the public ones. libpq's pairs (`host=HOST
        /// dbname=NAME`) and several hosts (`HOST1,HOST2`) are accepted too; see operations.md.
        pub url: Hidden = "sqlite://outrider-data/outrider.db".into();
        /// Maximum number of connections of one process for configuration and queries; on SQLite,
        /// for all reads. Two are reserved for the process itself. The others are divided into
        /// shares, and callers take turns on them. In-memory SQLite has one connection, whatever
        /// is set; SQLite in a file has one more, for writes.
        pub max_connections: u32 = 10, 4..;
        /// With PostgreSQL: maximum number of connections of one process for events and
        /// deliveries, in addition to `max_connections`.
        pub ledger_connections: u32 = 8, 4..;
        /// How long a request waits for its turn before it fails with `SHARE_EXHAUSTED` or
        /// `OVERLOADED`, and then for a connection before it fails with `UNAVAILABLE`.
        pub acquire_timeout: Duration = seconds(3), millis(100)..;
        /// With PostgreSQL: how long a statement may run. Migrations are exempt.
        pub statement_timeout: Duration = seconds(10), millis(100)..;
    }
    with database_rules;
}

fn database_rules(options: &DatabaseOptions) -> Result<(), Invalid> {
    check_url(&options.url).map_err(|message| Invalid::new("database.url", message))
}

section! {
    /// The in-memory copy of the configuration, which every process with ingest, dispatch, worker
    /// or admin keeps.
    pub struct DirectoryOptions in "directory" {
        /// Maximum number of entries of each kind.
        pub capacity: u64 = 100_000, 1..;
        /// How often the change feed is polled. Announced changes are read at once.
        pub poll: Duration = millis(500), millis(10)..;
        /// How long entries are trusted while the feed cannot be read.
        pub max_stale: Duration = minutes(5), seconds(1)..;
        /// Maximum number of API keys whose ids are kept in memory; a million take about 20 MB.
        /// With more keys than this, and with 0, no ids are kept.
        pub key_ids: usize = 1_000_000;
    }
}

/// What a store is opened with.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The settings.
    pub database: DatabaseOptions,
    /// Whether nothing may be written: for commands that look at the database of running servers.
    /// SQLite's file must exist then, and its log is left to its server. Default: false.
    pub read_only: bool,
    /// The keys that encrypt the secrets of endpoints.
    pub master_keys: MasterKeys,
}

impl StoreOptions {
    /// The default settings for a database and its keys.
    #[must_use]
    pub fn new(url: impl Into<Hidden>, master_keys: MasterKeys) -> Self {
        let database = DatabaseOptions { url: url.into(), ..DatabaseOptions::default() };
        Self { database, read_only: false, master_keys }
    }
}
