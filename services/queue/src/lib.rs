//! The window of jobs that are ready to be sent: a bounded, disposable copy of rows of the
//! database, in Redis or in memory.
//!
//! It must never be the only place that knows something: the feeder restores whatever is lost here.
//! No other crate talks to Redis.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use outrider_model::{
    DeliveryId, EndpointId, Job, Receipt, Recipient, Result, shares::SMALLEST_TOTAL,
};

mod changes;
mod embedded;
mod options;
mod redis;
mod servers;
mod shard;

pub use embedded::EmbeddedQueue;
pub use options::Options;
pub use redis::RedisQueue;
pub use servers::RedisTls;

/// A job takes one unit of the window, and one more for each of these many bytes of its payload and
/// headers.
const UNIT_BYTES: usize = 4_096;

/// A job to be queued.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// The job. Its `epoch` is the epoch of the shard that the caller knows.
    pub job: Arc<Job>,
    /// How many jobs of the endpoint the window takes: the endpoint's limit of requests in flight.
    pub endpoint_limit: u32,
}

impl NewJob {
    /// The endpoint.
    #[must_use]
    pub fn endpoint(&self) -> EndpointId {
        self.job.recipient.endpoint
    }

    /// Returns the units that the job takes in a window of this size: at most the share of an
    /// endpoint that is alone.
    fn units(&self, window: u32) -> u32 {
        let units = u32::try_from(1 + self.job.bytes() / UNIT_BYTES).unwrap_or(u32::MAX);
        units.min(window.max(SMALLEST_TOTAL) / 8)
    }
}

/// The result of queueing a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// The job waits in the queue.
    Queued,
    /// A job of the same delivery already waits or is held. Nothing was done.
    Present,
    /// The window has no room: the endpoint has reached its limit of jobs, or its share or that of
    /// its project or organization is used up.
    Full,
    /// The shard's epoch is not that of the job, so the shard was emptied or replaced.
    WrongEpoch,
}

/// A job that a worker holds until it is finished or its lease runs out.
#[derive(Debug, Clone)]
pub struct LeasedJob {
    pub job: Arc<Job>,
    pub receipt: Receipt,
    /// False if another worker held the job before. It may have been sent, so it must be checked in
    /// the database.
    pub first: bool,
}

/// A job to remove.
#[derive(Debug, Clone)]
pub struct Done {
    pub receipt: Receipt,
    pub delivery: DeliveryId,
    pub endpoint: EndpointId,
    /// The generation of the job. A later generation keeps its place.
    pub generation: u32,
}

/// The queue. Every error is `Unavailable`; the caller continues without the queue and tries again.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Returns the shard of an endpoint's jobs.
    fn shard(&self, endpoint: EndpointId) -> u32;

    /// Returns the epoch of each shard. A shard whose identity changed (it was emptied, restarted
    /// or failed over) is cleared and gets a new epoch, so rows with the old epoch are known not to
    /// be queued.
    async fn epochs(&self) -> Result<Vec<i64>>;

    /// Queues the jobs that fit, and returns a result for each, in order. All jobs of a shard take
    /// one round trip.
    async fn enqueue(&self, jobs: &[NewJob]) -> Result<Vec<Enqueued>>;

    /// Takes up to `max` jobs for this consumer, and waits up to `wait` for the first. The future
    /// must not be dropped before it returns: jobs that it took would wait until their lease runs
    /// out.
    async fn read(&self, consumer: &str, max: usize, wait: Duration) -> Result<Vec<LeasedJob>>;

    /// Takes over up to `max` jobs whose lease ran out.
    async fn reclaim(&self, consumer: &str, max: usize) -> Result<Vec<LeasedJob>>;

    /// Renews the leases of these jobs. Returns the receipts of jobs that this consumer no longer
    /// holds, because they were finished or taken over, or the queue was emptied.
    async fn renew(&self, consumer: &str, receipts: &[Receipt]) -> Result<Vec<Receipt>>;

    /// Removes jobs and frees their places. Doing it twice is harmless.
    async fn finish(&self, done: &[Done]) -> Result<()>;

    /// Returns, for each delivery, the generation of its job that waits or is held, if any.
    async fn held(&self, deliveries: &[(EndpointId, DeliveryId)]) -> Result<Vec<Option<u32>>>;

    /// Returns, for each endpoint with its limit, how many more small jobs of it fit if no jobs of
    /// the others are added.
    async fn room(&self, endpoints: &[(Recipient, u32)]) -> Result<Vec<u32>>;

    /// Returns the number of jobs that wait or are held, by shard.
    async fn depths(&self) -> Result<Vec<u64>>;

    /// Returns the number of jobs that wait or are held, in total.
    async fn depth(&self) -> Result<u64> {
        Ok(self.depths().await?.into_iter().sum())
    }

    /// Fails while no jobs can be delivered through the queue, because it does not answer or
    /// refuses a command that is needed.
    async fn ready(&self) -> Result<()> {
        self.depth().await.map(drop)
    }

    /// Tells every process that the configuration changed. This is best effort, because the change
    /// feed is also polled.
    async fn announce_change(&self) -> Result<()>;

    /// Returns when this or another process has announced a change. The future may be dropped.
    async fn change_announced(&self);
}
