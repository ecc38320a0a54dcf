//! An empty ledger that records what the watch asks of it.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use outrider_model::{DeliveryId, DeliveryReason, EndpointId, EventId, Timestamp, UsedKey};
use outrider_store::{
    Accepted, Backlog, CancelScope, Claim, ClaimedJob, FoundEvent, Ledger, LedgerError, NewEvent,
    PendingSummary, QueuedRef, Settled,
};

type Outcome<T> = Result<T, LedgerError>;

#[derive(Default)]
pub struct Booked {
    /// How often it was asked to prepare partitions.
    pub prepared: AtomicU64,
    /// The ranges of times of check in which overdue deliveries were searched.
    pub looks: Mutex<Vec<(Timestamp, Timestamp)>>,
    /// How many searches are not answered.
    pub failing: AtomicU64,
    /// The number of jobs to take back, a call that is never answered.
    pub unqueued: AtomicU64,
}

impl Booked {
    pub fn unqueued(&self) -> u64 {
        self.unqueued.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Ledger for Booked {
    async fn accept(&self, _: &[NewEvent], _: Timestamp) -> Outcome<Vec<Accepted>> {
        unreachable!()
    }
    async fn find(&self, _: &[UsedKey], _: Timestamp) -> Outcome<Vec<Option<FoundEvent>>> {
        unreachable!()
    }
    async fn settle(&self, _: &[Settled]) -> Outcome<Vec<bool>> {
        unreachable!()
    }
    async fn backlog(&self, _: Option<EndpointId>, _: u32) -> Outcome<Vec<Backlog>> {
        unreachable!()
    }
    async fn claim(
        &self,
        _: &[Claim],
        _: Timestamp,
        _: Timestamp,
        _: u32,
    ) -> Outcome<Vec<ClaimedJob>> {
        unreachable!()
    }
    async fn unqueue(&self, jobs: &[(DeliveryId, u32)]) -> Outcome<()> {
        self.unqueued.fetch_add(jobs.len() as u64, Ordering::SeqCst);
        std::future::pending().await
    }
    async fn unqueue_other_epochs(&self, _: &[i64]) -> Outcome<u64> {
        Ok(0)
    }
    async fn overdue(&self, after: Timestamp, until: Timestamp, _: u32) -> Outcome<Vec<QueuedRef>> {
        self.looks.lock().unwrap().push((after, until));
        let failing = self
            .failing
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if failing.is_ok() { Err(LedgerError::Unavailable("away".into())) } else { Ok(Vec::new()) }
    }
    async fn extend(&self, _: &[(DeliveryId, u32)], _: Timestamp) -> Outcome<()> {
        unreachable!()
    }
    async fn current(&self, _: &[(DeliveryId, u32, u32)]) -> Outcome<Vec<bool>> {
        unreachable!()
    }
    async fn payloads(&self, _: &[EventId]) -> Outcome<Vec<Option<Bytes>>> {
        unreachable!()
    }
    async fn cancel(
        &self,
        _: CancelScope,
        _: DeliveryReason,
        _: Timestamp,
        _: u32,
    ) -> Outcome<u64> {
        unreachable!()
    }
    async fn pending_summary(&self, _: Timestamp, _: u32) -> Outcome<PendingSummary> {
        unreachable!()
    }
    async fn prepare(&self, _: Timestamp) -> Outcome<()> {
        self.prepared.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    async fn prune_log(&self, _: Timestamp) -> Outcome<bool> {
        unreachable!()
    }
}
