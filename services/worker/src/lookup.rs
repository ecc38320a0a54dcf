//! The reads of the store that a worker needs, and nothing more.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use outrider_model::{DeliveryId, EndpointId, Error, EventId, Result, Timestamp};
use outrider_store::{Clock, Directory, EndpointEntry, Ledger, LedgerError};

/// The reads of the store that a worker needs. Every error means that the answer is unknown now,
/// and the call may be repeated.
#[async_trait]
pub trait Lookup: Send + Sync + 'static {
    /// Returns an endpoint with its secrets, or `None` if it does not exist or was deleted.
    async fn endpoint(&self, id: EndpointId) -> Result<Option<Arc<EndpointEntry>>>;

    /// Returns for each job (delivery, attempt, generation), in order, whether the pending delivery
    /// still names it.
    async fn current(&self, jobs: &[(DeliveryId, u32, u32)]) -> Result<Vec<bool>>;

    /// Returns the payloads of events, in order, if they exist.
    async fn payloads(&self, events: &[EventId]) -> Result<Vec<Option<Bytes>>>;

    /// Returns the time by the database's clock.
    fn now(&self) -> Timestamp;
}

/// Reads the store.
pub struct StoreLookup {
    directory: Directory,
    ledger: Arc<dyn Ledger>,
    clock: Clock,
}

impl StoreLookup {
    /// Uses a directory, which must be kept fresh, a ledger, and the database's clock.
    #[must_use]
    pub fn new(directory: Directory, ledger: Arc<dyn Ledger>, clock: Clock) -> Self {
        Self { directory, ledger, clock }
    }
}

#[async_trait]
impl Lookup for StoreLookup {
    async fn endpoint(&self, id: EndpointId) -> Result<Option<Arc<EndpointEntry>>> {
        self.directory.endpoint(id).await
    }

    async fn current(&self, jobs: &[(DeliveryId, u32, u32)]) -> Result<Vec<bool>> {
        whole(jobs.len(), self.ledger.current(jobs).await)
    }

    async fn payloads(&self, events: &[EventId]) -> Result<Vec<Option<Bytes>>> {
        whole(events.len(), self.ledger.payloads(events).await)
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// Checks that the answer has a result for each question.
fn whole<T>(wanted: usize, answer: Result<Vec<T>, LedgerError>) -> Result<Vec<T>> {
    match answer {
        Ok(results) if results.len() == wanted => Ok(results),
        Ok(_) => Err(Error::internal("the ledger answered another number of results")),
        Err(error) => {
            tracing::warn!(%error, "the ledger does not answer");
            Err(Error::unavailable("the ledger does not answer"))
        }
    }
}
