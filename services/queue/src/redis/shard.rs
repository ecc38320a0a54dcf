//! One shard: its keys, its readers, and whether it rests after a failure.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{keys::ShardKeys, reader::Readers};

/// How long a shard that failed is skipped when others are read, because waiting for it would hold
/// them up.
const REST: Duration = Duration::from_secs(2);

/// A shard of the queue.
pub(super) struct Shard {
    pub(super) number: u32,
    pub(super) keys: ShardKeys,
    pub(super) readers: Readers,
    pub(super) rests_until: Mutex<Option<Instant>>,
}

impl Shard {
    pub(super) fn rest(&self) {
        *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Instant::now() + REST);
    }

    pub(super) fn resting(&self) -> bool {
        self.rests_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|until| Instant::now() < until)
    }
}
