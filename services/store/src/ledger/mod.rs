//! The ledger: what is promised is written here. Events and their pending deliveries in one commit;
//! attempts settled in batches; what is due handed to the feeder. One trait, two backends; every
//! method is one statement (or one transaction) for its whole batch.

pub(crate) mod codec;
mod keys;
mod order;
mod postgres;
mod sqlite;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use outrider_model::{
    Attempt, DeliveryId, DeliveryReason, EndpointId, Event, EventId, PendingDelivery, ProjectId,
    Timestamp, Trace, Verdict,
};
use outrider_telemetry::catalogue::store::ERRORS;

pub(crate) use postgres::partitions;
pub(crate) use sqlite::{Bound, Chunked};

use crate::{Store, connect::Hot};

/// How the ledger behaves. Only SQLite has something to set: its one writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerOptions {
    /// Calls that wait for the writer; further ones wait for a place. Default 1,024.
    pub waiting_calls: usize,
    /// Calls that share a commit, at most; one of them may be large. Default 256.
    pub calls_per_commit: usize,
}

impl Default for LedgerOptions {
    fn default() -> Self {
        Self { waiting_calls: 1_024, calls_per_commit: 256 }
    }
}

/// The ledger of a store, with the default options: see [`open_with`].
pub(crate) fn open(store: &Store) -> Arc<dyn Ledger> {
    open_with(store, LedgerOptions::default())
}

/// A ledger of a store. On SQLite each has a writer task of its own, which ends with the last
/// handle, and calls of different ledgers share no commits: [`Store::ledger`] gives the one that
/// all should use. To be called on a tokio runtime.
#[must_use]
pub fn open_with(store: &Store, options: LedgerOptions) -> Arc<dyn Ledger> {
    match store.hot() {
        Hot::Postgres(sessions) => {
            Arc::new(postgres::PostgresLedger::new(sessions.clone(), store.clock().clone()))
        }
        Hot::Sqlite { read, write } => Arc::new(sqlite::SqliteLedger::new(
            read.clone(),
            write.clone(),
            store.clock().clone(),
            options,
        )),
    }
}

/// Why a batch was not written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The database refuses the data of some row: the batch may be split until the culprit is
    /// alone.
    #[error("the database refuses a row: {0}")]
    Data(String),
    /// Anything else: whether the batch was written is unknown.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
}

/// The same error, counted.
fn counted(error: LedgerError) -> LedgerError {
    let kind = match &error {
        LedgerError::Data(_) => "data",
        LedgerError::Unavailable(_) => "unavailable",
    };
    ERRORS.with_label_values(&[kind]).inc();
    error
}

/// An event to be made durable with its deliveries.
#[derive(Debug, Clone)]
pub struct NewEvent {
    pub event: Event,
    pub payload: Bytes,
    /// SHA-256 of what the producer gave; with an idempotency key.
    pub fingerprint: Option<[u8; 32]>,
    pub deliveries: Vec<PendingDelivery>,
}

/// What became of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It is committed.
    New,
    /// Its idempotency key had been used for the same content, by this event.
    Duplicate { event: EventId, delivery_count: u32, created_at: Timestamp },
    /// Its idempotency key had been used for other content.
    Conflict,
}

/// An idempotency key that an event may have been accepted under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedKey {
    pub project: ProjectId,
    pub key: String,
    pub fingerprint: [u8; 32],
}

/// An event that was accepted before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundEvent {
    pub event: EventId,
    pub delivery_count: u32,
    pub created_at: Timestamp,
}

/// The outcome of one job, to be written.
#[derive(Debug, Clone)]
pub struct Settled {
    pub delivery: DeliveryId,
    /// The attempt that the job was for.
    pub attempt: u32,
    pub generation: u32,
    pub verdict: Verdict,
    /// The attempt, when one was made. It is recorded whether or not the verdict applies.
    pub record: Option<Attempt>,
    pub at: Timestamp,
}

/// An endpoint with deliveries that wait in the database only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    pub endpoint: EndpointId,
    pub project: ProjectId,
    pub earliest_due: Timestamp,
}

/// How many due deliveries of an endpoint are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    pub endpoint: EndpointId,
    pub limit: u32,
    /// The epoch of the endpoint's queue shard, which the rows will bear.
    pub epoch: i64,
}

/// A delivery that was marked as queued, with what its job needs of the event.
#[derive(Debug, Clone)]
pub struct ClaimedJob {
    /// As it is after the claim: its epoch and the raised generation are those of the job.
    pub delivery: PendingDelivery,
    pub event_type: String,
    pub content_type: String,
    pub headers: std::collections::BTreeMap<String, String>,
    pub ordering_key: Option<String>,
    pub payload_size: u32,
    /// Absent when it is larger than the caller wants inline.
    pub payload: Option<Bytes>,
    pub trace: Option<Trace>,
}

/// How things stand with what is pending, in the whole database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Pending deliveries, counted up to a limit.
    pub pending: u64,
    /// The earliest time at which one was due that may be sent: its endpoint is neither paused nor
    /// deleted.
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

/// Whose pending deliveries are cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelScope {
    Endpoint(EndpointId),
    Project(ProjectId),
}

/// The hot path of the store. Not on behalf of a caller: ingest and dispatch have authorised what
/// comes here.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// Writes events, their idempotency keys and pending deliveries in one commit. A result for
    /// each, in order. Keys older than `keys_since` do not count. Two events of one batch may bear
    /// the same key: the first wins. What is new is in the log of commits.
    async fn accept(
        &self,
        batch: &[NewEvent],
        keys_since: Timestamp,
    ) -> Result<Vec<Accepted>, LedgerError>;

    /// The events that were accepted under these keys with these fingerprints, if any, in order; at
    /// most 1,000. Keys older than `keys_since` do not count.
    async fn find(
        &self,
        keys: &[UsedKey],
        keys_since: Timestamp,
    ) -> Result<Vec<Option<FoundEvent>>, LedgerError>;

    /// Writes attempts and carries verdicts out, in one commit; for each, whether its verdict
    /// applied ([`outrider_model::delivery::step`]). Writing the same batch twice changes nothing
    /// more. Ended deliveries move from the pending table to the history. In the log of commits are
    /// those whose verdict applied or whose attempt was recorded.
    async fn settle(&self, batch: &[Settled]) -> Result<Vec<bool>, LedgerError>;

    /// Endpoints with unqueued deliveries, in the order of their ids, after `after`: the earliest
    /// due time of each. Costs a look-up per endpoint, whatever the number of rows.
    async fn backlog(
        &self,
        after: Option<EndpointId>,
        limit: u32,
    ) -> Result<Vec<Backlog>, LedgerError>;

    /// Marks due, unqueued deliveries as queued (epoch, generation + 1, `check_at`) and returns
    /// them, earliest due first within an endpoint. Rows that another process is claiming are
    /// skipped. Payloads up to `inline_bytes` come along.
    async fn claim(
        &self,
        claims: &[Claim],
        now: Timestamp,
        check_at: Timestamp,
        inline_bytes: u32,
    ) -> Result<Vec<ClaimedJob>, LedgerError>;

    /// Takes back the mark of deliveries that the queue refused or lacks, if their generation is
    /// still this one.
    async fn unqueue(&self, jobs: &[(DeliveryId, u32)]) -> Result<(), LedgerError>;

    /// Takes back the mark of all deliveries whose epoch is none of these; how many there were.
    async fn unqueue_other_epochs(&self, current: &[i64]) -> Result<u64, LedgerError>;

    /// Up to `limit` queued deliveries whose `check_at` is after `after` and not after `until`, the
    /// earliest first. On PostgreSQL it costs a look at every row that was queued with such a time
    /// and that a long transaction keeps from being cleared away, ended or not.
    async fn overdue(
        &self,
        after: Timestamp,
        until: Timestamp,
        limit: u32,
    ) -> Result<Vec<QueuedRef>, LedgerError>;

    /// Sets `check_at` of deliveries whose job is still in the queue, if their generation is still
    /// this one.
    async fn extend(
        &self,
        jobs: &[(DeliveryId, u32)],
        check_at: Timestamp,
    ) -> Result<(), LedgerError>;

    /// For each job (delivery, attempt, generation): whether it is what the pending row names now.
    async fn current(&self, jobs: &[(DeliveryId, u32, u32)]) -> Result<Vec<bool>, LedgerError>;

    /// The payloads of events, where they exist and were not erased.
    async fn payloads(&self, events: &[EventId]) -> Result<Vec<Option<Bytes>>, LedgerError>;

    /// Ends up to `limit` unqueued pending deliveries as cancelled with this reason; how many there
    /// were. None while the endpoint or project exists and is not deleted.
    async fn cancel(
        &self,
        scope: CancelScope,
        reason: DeliveryReason,
        now: Timestamp,
        limit: u32,
    ) -> Result<u64, LedgerError>;

    /// How things stand. Costs a look-up per endpoint with unqueued deliveries, a pass over what is
    /// queued (which the window bounds) and a count of at most `count_limit` rows: for every few
    /// seconds.
    async fn standing(&self, now: Timestamp, count_limit: u32) -> Result<Standing, LedgerError>;

    /// Makes room ahead: creates the partitions of the days to come. Nothing to do on SQLite.
    async fn prepare(&self, now: Timestamp) -> Result<(), LedgerError>;

    /// One bounded step of pruning the log of commits ([`crate::LogPlace`]): rows from `kept_from`
    /// on stay. Whether there may be more to do. On PostgreSQL whole days are dropped.
    async fn prune_log(&self, kept_from: Timestamp) -> Result<bool, LedgerError>;
}
