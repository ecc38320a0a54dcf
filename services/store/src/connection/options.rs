//! How to connect.

use std::{fmt, time::Duration};

use crate::cipher::MasterKeys;

/// How to connect to the database, and within which bounds.
#[derive(Clone)]
pub struct StoreOptions {
    /// `postgres://…`, `sqlite://path` (created if missing) or `sqlite::memory:`.
    pub url: String,
    /// Maximum number of connections for configuration and queries. Two are for the process itself;
    /// callers take turns with the others. Default: 10. In-memory SQLite always has one; SQLite in
    /// a file has one more, for writes.
    pub max_connections: u32,
    /// Maximum number of further connections to PostgreSQL, for events and deliveries. Default: 8.
    pub ledger_connections: u32,
    /// How long a call waits for its turn to connect before it answers `SHARE_EXHAUSTED` or
    /// `OVERLOADED`, and then for the connection before it answers `UNAVAILABLE`. Default: 3 s.
    pub acquire_timeout: Duration,
    /// How long PostgreSQL works on one statement before it gives up. Migrations are exempt.
    /// Default: 10 s.
    pub statement_timeout: Duration,
    /// Whether to write nothing, for commands that inspect the database of running servers.
    /// SQLite's file must then exist, and its write-ahead log is left to its server. Default:
    /// false.
    pub read_only: bool,
    /// The keys that encrypt the secrets of endpoints.
    pub master_keys: MasterKeys,
}

impl StoreOptions {
    /// The defaults, for a database and its keys.
    #[must_use]
    pub fn new(url: impl Into<String>, master_keys: MasterKeys) -> Self {
        Self {
            url: url.into(),
            max_connections: 10,
            ledger_connections: 8,
            acquire_timeout: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(10),
            read_only: false,
            master_keys,
        }
    }
}

impl fmt::Debug for StoreOptions {
    /// Leaves out the URL, which may contain a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("max_connections", &self.max_connections)
            .field("ledger_connections", &self.ledger_connections)
            .field("acquire_timeout", &self.acquire_timeout)
            .field("statement_timeout", &self.statement_timeout)
            .field("read_only", &self.read_only)
            .field("master_keys", &self.master_keys)
            .finish_non_exhaustive()
    }
}
