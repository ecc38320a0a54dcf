//! Places for jobs in hand. Their number is bounded.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::shared::Shared;

/// Places for some jobs in hand.
pub(super) struct Places {
    places: OwnedSemaphorePermit,
}

impl Places {
    pub(super) async fn wait(shared: &Shared) -> Self {
        Self { places: some(&shared.places, shared.options.read_batch).await }
    }

    pub(super) fn jobs(&self) -> usize {
        self.places.num_permits()
    }

    /// Returns a place for one job.
    pub(super) fn next(&mut self) -> Option<OwnedSemaphorePermit> {
        self.places.split(1)
    }
}

/// Waits for at least one permit, and takes at most `most`.
async fn some(permits: &Arc<Semaphore>, most: usize) -> OwnedSemaphorePermit {
    let mut taken =
        Arc::clone(permits).acquire_owned().await.expect("no semaphore of a worker is closed");
    let more = permits.available_permits().min(most - 1);
    if let Ok(more) =
        Arc::clone(permits).try_acquire_many_owned(u32::try_from(more).unwrap_or(u32::MAX))
    {
        taken.merge(more);
    }
    taken
}
