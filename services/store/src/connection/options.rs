//! How to connect.

use std::time::Duration;

use outrider_settings::{Hidden, Invalid, millis, seconds, section};

use super::backend::check_url;
use crate::cipher::MasterKeys;

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

/// What a store is opened with.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The settings.
    pub database: DatabaseOptions,
    /// Whether to write nothing, for commands that inspect the database of running servers.
    /// SQLite's file must then exist, and its write-ahead log is left to its server. Default:
    /// false.
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
