//! The window of jobs that are ready to be sent: a bounded, disposable copy of what the database
//! holds, in Redis or in memory.
//!
//! It must never be the only place where something is known: whatever is lost here is found again
//! by the feeder. Nothing outside this crate speaks to Redis.

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

/// A job takes one unit of the window, and one more for each so many bytes of its payload and
/// headers.
const UNIT_BYTES: usize = 4_096;

/// A job to be queued.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// What is to be sent; its `epoch` is that of the shard that the caller knows.
    pub job: Arc<Job>,
    /// Jobs of the endpoint that the window takes: the endpoint's limit of requests under way.
    pub endpoint_limit: u32,
}

impl NewJob {
    /// The endpoint.
    #[must_use]
    pub fn endpoint(&self) -> EndpointId {
        self.job.recipient.endpoint
    }

    /// Units of a window of this size that the job takes; never more than a lone endpoint has.
    fn units(&self, window: u32) -> u32 {
        let units = u32::try_from(1 + self.job.bytes() / UNIT_BYTES).unwrap_or(u32::MAX);
        units.min(window.max(SMALLEST_TOTAL) / 8)
    }
}

/// What became of a job that was to be queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// It waits.
    Queued,
    /// A job of the same delivery waits or is held already; nothing was done.
    Present,
    /// The window has no room for it: the endpoint has as many jobs there as it may, or its share,
    /// that of its project or of its organisation is used up.
    Full,
    /// The shard has another epoch than the job: it is not what the caller knew.
    WrongEpoch,
}

/// A job that a worker holds until it is finished or its lease runs out.
#[derive(Debug, Clone)]
pub struct LeasedJob {
    pub job: Arc<Job>,
    pub receipt: Receipt,
    /// False when another worker held it before: it may have been sent, and must be checked in the
    /// database.
    pub first: bool,
}

/// A job that needs its place no longer.
#[derive(Debug, Clone)]
pub struct Done {
    pub receipt: Receipt,
    pub delivery: DeliveryId,
    pub endpoint: EndpointId,
    /// Of the job; the place of a later generation is left alone.
    pub generation: u32,
}

/// The queue. Every error is `Unavailable`: the caller goes on without it and tries again.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// The shard of an endpoint's jobs.
    fn shard(&self, endpoint: EndpointId) -> u32;

    /// The epoch of each shard. A shard whose identity changed (emptied, restarted, failed over) is
    /// cleared and gets a new epoch here, so that rows which name the old one are known to be
    /// queued nowhere.
    async fn epochs(&self) -> Result<Vec<i64>>;

    /// Queues what fits; a result for each, in order. All jobs of a shard go in one round trip.
    async fn enqueue(&self, jobs: &[NewJob]) -> Result<Vec<Enqueued>>;

    /// Takes up to `max` jobs for this consumer, waiting up to `wait` for the first. Must not be
    /// dropped before it returns: jobs that it took would wait for their lease to run out.
    async fn read(&self, consumer: &str, max: usize, wait: Duration) -> Result<Vec<LeasedJob>>;

    /// Takes over up to `max` jobs whose lease ran out.
    async fn reclaim(&self, consumer: &str, max: usize) -> Result<Vec<LeasedJob>>;

    /// Begins the leases of these jobs again. Returns the receipts of the jobs that are not this
    /// consumer's any more: they are finished, another consumer took them over, or the queue was
    /// emptied.
    async fn renew(&self, consumer: &str, receipts: &[Receipt]) -> Result<Vec<Receipt>>;

    /// Removes jobs and frees their places. Doing it twice is harmless.
    async fn finish(&self, done: &[Done]) -> Result<()>;

    /// For each delivery: the generation of the job that waits or is held, if there is one.
    async fn held(&self, deliveries: &[(EndpointId, DeliveryId)]) -> Result<Vec<Option<u32>>>;

    /// For each endpoint and its limit: how many more small jobs the window would take of it, if it
    /// took none of the others.
    async fn room(&self, endpoints: &[(Recipient, u32)]) -> Result<Vec<u32>>;

    /// How many jobs wait or are held, by shard.
    async fn depths(&self) -> Result<Vec<u64>>;

    /// The same, in all.
    async fn depth(&self) -> Result<u64> {
        Ok(self.depths().await?.into_iter().sum())
    }

    /// Fails while jobs cannot be delivered through it: it does not answer, or it refuses a command
    /// that the work needs.
    async fn ready(&self) -> Result<()> {
        self.depth().await.map(drop)
    }

    /// Tells every process that configuration changed. Best effort: the feed in the database is
    /// polled as well.
    async fn announce_change(&self) -> Result<()>;

    /// Returns when a change was announced (by this or another process), or never. May be dropped.
    async fn change_announced(&self);
}
