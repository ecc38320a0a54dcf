//! The options of the directory.

use std::time::Duration;

/// How the directory behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryOptions {
    /// Maximum number of entries of each kind. Default: 100,000.
    pub capacity: u64,
    /// How often the change feed is polled. Default: 500 ms.
    pub poll: Duration,
    /// How long entries are trusted while the feed cannot be read. Default: 5 min.
    pub max_stale: Duration,
    /// Maximum number of API keys whose ids are kept in memory, which takes about 20 MB. With more
    /// keys, or with 0, no ids are kept. Default: 1,000,000.
    pub key_ids: usize,
}

impl Default for DirectoryOptions {
    fn default() -> Self {
        Self {
            capacity: 100_000,
            poll: Duration::from_millis(500),
            max_stale: Duration::from_secs(5 * 60),
            key_ids: 1_000_000,
        }
    }
}
