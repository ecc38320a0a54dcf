//! The settings of the directory.

use std::time::Duration;

use outrider_settings::{millis, minutes, seconds, section};

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
