//! The contract of the ledger: events and deliveries are durable once it has written them.
//!
//! It writes events and their pending deliveries in one commit, settles attempts in batches, and
//! hands due deliveries to the feeder. Every method is one statement or one transaction for its
//! whole batch. The implementations, for both backends, are in `history/ledger`.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use outrider_model::{
    Attempt, DeliveryId, DeliveryReason, EndpointId, Event, EventId, PendingDelivery, ProjectId,
    Timestamp, Trace, UsedKey, Verdict,
};

/// Options of the ledger. They apply only to SQLite, to its one writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerOptions {
    /// Maximum number of calls that wait for the writer. Further calls wait for room. Default:
    /// 1,024.
    pub waiting_calls: usize,
    /// Maximum number of calls that share a commit. One of them may be large. Default: 256.
    pub calls_per_commit: usize,
}

impl Default for LedgerOptions {
    fn default() -> Self {
        Self { waiting_calls: 1_024, calls_per_commit: 256 }
    }
}

/// The reason why a batch was not written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The database refuses the data of a row. The batch may be split until that row is alone.
    #[error("the database refuses a row: {0}")]
    Data(String),
    /// Any other failure. Whether the batch was written is unknown.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
}

/// An event to write, with its deliveries.
#[derive(Debug, Clone)]
pub struct NewEvent {
    pub event: Event,
    pub payload: Bytes,
    /// SHA-256 of what the producer sent. Required with an idempotency key.
    pub fingerprint: Option<[u8; 32]>,
    pub deliveries: Vec<PendingDelivery>,
}

/// The outcome for one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// The event is committed.
    New,
    /// Its idempotency key was used before for the same content, by this event.
    Duplicate { event: EventId, delivery_count: u32, created_at: Timestamp },
    /// Its idempotency key was used before for other content.
    Conflict,
}

/// An event that was accepted before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundEvent {
    pub event: EventId,
    pub delivery_count: u32,
    pub created_at: Timestamp,
}

/// The outcome of a job, to write.
#[derive(Debug, Clone)]
pub struct Settled {
    pub delivery: DeliveryId,
    /// The attempt that the job was for.
    pub attempt: u32,
    pub generation: u32,
    pub verdict: Verdict,
    /// The attempt, if one was made. It is recorded whether or not the verdict applies.
    pub record: Option<Attempt>,
    pub at: Timestamp,
}

/// An endpoint with deliveries that wait only in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    pub endpoint: EndpointId,
    pub project: ProjectId,
    pub earliest_due: Timestamp,
}

/// A request for due deliveries of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    pub endpoint: EndpointId,
    pub limit: u32,
    /// The epoch of the endpoint's queue shard, to write into the rows.
    pub epoch: i64,
}

/// A delivery that was marked as queued, with the parts of the event that its job needs.
#[derive(Debug, Clone)]
pub struct ClaimedJob {
    /// The delivery after the claim: its epoch and incremented generation are those of the job.
    pub delivery: PendingDelivery,
    pub event_type: String,
    pub content_type: String,
    pub headers: BTreeMap<String, String>,
    pub ordering_key: Option<String>,
    pub payload_size: u32,
    /// Absent if it is larger than the caller wants inline.
    pub payload: Option<Bytes>,
    pub trace: Option<Trace>,
}

/// The state of all pending deliveries in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingSummary {
    /// The number of pending deliveries, counted up to a limit.
    pub pending: u64,
    /// The earliest due time of a delivery that may be sent, because its endpoint is neither paused
    /// nor deleted.
    pub oldest_due: Option<Timestamp>,
}

/// A row that names a job in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuedRef {
    pub delivery: DeliveryId,
    pub endpoint: EndpointId,
    pub attempt: u32,
    pub generation: u32,
}

/// The endpoint or project whose pending deliveries are canceled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelScope {
    Endpoint(EndpointId),
    Project(ProjectId),
}

/// The hot path of the store. It takes no principal, because ingest and dispatch have authorized
/// the calls.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// Writes events, their idempotency keys and their pending deliveries in one commit. Returns a
    /// result for each event, in order. Keys older than `keys_since` have expired. If two events of
    /// a batch have the same key, the first wins. New events are written to the commit log.
    async fn accept(
        &self,
        batch: &[NewEvent],
        keys_since: Timestamp,
    ) -> Result<Vec<Accepted>, LedgerError>;

    /// The events that were accepted under these keys with these fingerprints, if any, in order.
    /// For at most 1,000 keys. Keys older than `keys_since` have expired.
    async fn find(
        &self,
        keys: &[UsedKey],
        keys_since: Timestamp,
    ) -> Result<Vec<Option<FoundEvent>>, LedgerError>;

    /// Writes attempts and applies verdicts in one commit. Returns for each whether its verdict
    /// applied ([`outrider_model::delivery::step`]). Writing a batch twice changes nothing more.
    /// Ended deliveries move from the pending table to the history. Deliveries whose verdict
    /// applied or whose attempt was recorded are written to the commit log.
    async fn settle(&self, batch: &[Settled]) -> Result<Vec<bool>, LedgerError>;

    /// Endpoints with unqueued deliveries after `after`, in the order of their ids, each with its
    /// earliest due time. Costs a look-up per endpoint, however many rows there are.
    async fn backlog(
        &self,
        after: Option<EndpointId>,
        limit: u32,
    ) -> Result<Vec<Backlog>, LedgerError>;

    /// Marks due, unqueued deliveries as queued (epoch, generation + 1, `check_at`) and returns
    /// them, earliest due first within an endpoint. Skips rows that another process is claiming.
    /// Includes payloads of up to `inline_bytes`.
    async fn claim(
        &self,
        claims: &[Claim],
        now: Timestamp,
        check_at: Timestamp,
        inline_bytes: u32,
    ) -> Result<Vec<ClaimedJob>, LedgerError>;

    /// Removes the mark of deliveries that the queue refused or lacks, if they still have this
    /// generation.
    async fn unqueue(&self, jobs: &[(DeliveryId, u32)]) -> Result<(), LedgerError>;

    /// Removes the mark of all deliveries with another epoch than these. Returns their number.
    async fn unqueue_other_epochs(&self, current: &[i64]) -> Result<u64, LedgerError>;

    /// Up to `limit` queued deliveries whose `check_at` is after `after` and not after `until`,
    /// earliest first. On PostgreSQL this also reads every index entry with such a time that a long
    /// transaction keeps from being vacuumed, even if its delivery has ended.
    async fn overdue(
        &self,
        after: Timestamp,
        until: Timestamp,
        limit: u32,
    ) -> Result<Vec<QueuedRef>, LedgerError>;

    /// Sets `check_at` of deliveries whose job is still in the queue, if they still have this
    /// generation.
    async fn extend(
        &self,
        jobs: &[(DeliveryId, u32)],
        check_at: Timestamp,
    ) -> Result<(), LedgerError>;

    /// For each job (delivery, attempt, generation), whether the pending row names it now.
    async fn current(&self, jobs: &[(DeliveryId, u32, u32)]) -> Result<Vec<bool>, LedgerError>;

    /// The payloads of events, if they exist and were not erased.
    async fn payloads(&self, events: &[EventId]) -> Result<Vec<Option<Bytes>>, LedgerError>;

    /// Ends up to `limit` unqueued pending deliveries as canceled with this reason. Returns their
    /// number: 0 while the endpoint or project exists and is not deleted.
    async fn cancel(
        &self,
        scope: CancelScope,
        reason: DeliveryReason,
        now: Timestamp,
        limit: u32,
    ) -> Result<u64, LedgerError>;

    /// The state of all pending deliveries. Costs a look-up per endpoint with unqueued deliveries,
    /// a pass over the queued ones (which the window bounds) and a count of at most `count_limit`
    /// rows: cheap enough for every few seconds.
    async fn pending_summary(
        &self,
        now: Timestamp,
        count_limit: u32,
    ) -> Result<PendingSummary, LedgerError>;

    /// Creates the partitions of the coming days. Does nothing on SQLite.
    async fn prepare(&self, now: Timestamp) -> Result<(), LedgerError>;

    /// Prunes the commit log ([`crate::LogPosition`]) by one bounded step. Rows from `kept_from` on
    /// stay. Returns whether there may be more to do. On PostgreSQL this drops whole days.
    async fn prune_log(&self, kept_from: Timestamp) -> Result<bool, LedgerError>;
}
