//! How the store is reached.

use std::{fmt, time::Duration};

use crate::MasterKeys;

/// How the store is reached, and its bounds.
#[derive(Clone)]
pub struct StoreOptions {
    /// `postgres://…`, `sqlite://path` (created when missing) or `sqlite::memory:`.
    pub url: String,
    /// Connections held at most for configuration and questions: two for the process itself, the
    /// others for callers, in turns. Default
    /// 10. In-memory SQLite has one, whatever is set; SQLite in a file has one more, for writes.
    pub max_connections: u32,
    /// Connections to PostgreSQL held at most, beside those, for events and deliveries. Default 8.
    pub ledger_connections: u32,
    /// How long a call waits for its turn to have a connection before it answers `SHARE_EXHAUSTED`
    /// or `OVERLOADED`, and then for the connection before it answers `UNAVAILABLE`. Default 3 s.
    pub acquire_timeout: Duration,
    /// How long PostgreSQL works on one statement before it gives up. Default 10 s; migrations are
    /// exempt.
    pub statement_timeout: Duration,
    /// Whether nothing may be written: for commands that look at the database of running servers.
    /// SQLite's file must be there then, and its log is left to its server. Default false.
    pub read_only: bool,
    /// With which the secrets of endpoints are encrypted.
    pub master_keys: MasterKeys,
}

impl StoreOptions {
    /// The defaults for a database and its keys.
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
    /// Without the URL, which may hold a password.
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
