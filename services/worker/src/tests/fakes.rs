//! The queue, the store, the egress and dispatch, as far as a worker sees them.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use outrider_model::{
    DeliveryId, EndpointId, Error, EventId, JobReport, Receipt, Recipient, Result, Timestamp,
};
use outrider_queue::{Done, Enqueued, LeasedJob, NewJob, Queue};
use outrider_rpc::{DialError, Dialer, NoConnection, Settlement, Socket};
use outrider_store::EndpointEntry;
use tokio::{net::TcpStream, sync::Notify};

use crate::Lookup;

/// A queue that hands out what a test puts in.
#[derive(Default)]
pub(crate) struct FakeQueue {
    pub(crate) waiting: Mutex<VecDeque<LeasedJob>>,
    pub(crate) abandoned: Mutex<VecDeque<LeasedJob>>,
    pub(crate) renewed: AtomicUsize,
    /// Jobs that another worker has taken over.
    pub(crate) taken_over: Mutex<HashSet<Receipt>>,
    pub(crate) down: AtomicBool,
    arrived: Notify,
}

impl FakeQueue {
    pub(crate) fn push(&self, job: LeasedJob) {
        self.waiting.lock().unwrap().push_back(job);
        self.arrived.notify_one();
    }

    fn up(&self) -> Result<()> {
        if self.down.load(Ordering::SeqCst) { Err(Error::unavailable("down")) } else { Ok(()) }
    }
}

fn pop(jobs: &Mutex<VecDeque<LeasedJob>>, max: usize) -> Vec<LeasedJob> {
    let mut jobs = jobs.lock().unwrap();
    let count = jobs.len().min(max);
    jobs.drain(..count).collect()
}

#[async_trait]
impl Queue for FakeQueue {
    fn shard(&self, _: EndpointId) -> u32 {
        0
    }
    async fn epochs(&self) -> Result<Vec<i64>> {
        Ok(vec![1])
    }
    async fn enqueue(&self, _: &[NewJob]) -> Result<Vec<Enqueued>> {
        panic!("a worker queues nothing")
    }
    async fn read(&self, _: &str, max: usize, wait: Duration) -> Result<Vec<LeasedJob>> {
        self.up()?;
        let _ = tokio::time::timeout(wait, async {
            while self.waiting.lock().unwrap().is_empty() {
                self.arrived.notified().await;
            }
        })
        .await;
        Ok(pop(&self.waiting, max))
    }
    async fn reclaim(&self, _: &str, max: usize) -> Result<Vec<LeasedJob>> {
        self.up()?;
        Ok(pop(&self.abandoned, max))
    }
    async fn renew(&self, _: &str, receipts: &[Receipt]) -> Result<Vec<Receipt>> {
        self.up()?;
        self.renewed.fetch_add(receipts.len(), Ordering::SeqCst);
        let taken = self.taken_over.lock().unwrap();
        Ok(receipts.iter().filter(|receipt| taken.contains(receipt)).cloned().collect())
    }
    async fn finish(&self, _: &[Done]) -> Result<()> {
        panic!("dispatch finishes jobs")
    }
    async fn held(&self, _: &[(EndpointId, DeliveryId)]) -> Result<Vec<Option<u32>>> {
        panic!("a worker does not ask")
    }
    async fn room(&self, _: &[(Recipient, u32)]) -> Result<Vec<u32>> {
        panic!("a worker does not ask")
    }
    async fn depths(&self) -> Result<Vec<u64>> {
        panic!("a worker does not ask")
    }
    async fn announce_change(&self) -> Result<()> {
        panic!("a worker changes nothing")
    }
    async fn change_announced(&self) {
        std::future::pending().await
    }
}

/// A store with the contents that a test gives it.
#[derive(Default)]
pub(crate) struct FakeLookup {
    pub(crate) endpoints: Mutex<HashMap<EndpointId, Arc<EndpointEntry>>>,
    /// Deliveries that are no longer current. All others are.
    pub(crate) past: Mutex<HashSet<DeliveryId>>,
    pub(crate) payloads: Mutex<HashMap<EventId, Bytes>>,
    pub(crate) checks: AtomicUsize,
    pub(crate) down: AtomicBool,
    pub(crate) now: AtomicI64,
}

impl FakeLookup {
    fn up(&self) -> Result<()> {
        if self.down.load(Ordering::SeqCst) { Err(Error::unavailable("down")) } else { Ok(()) }
    }
}

#[async_trait]
impl Lookup for FakeLookup {
    async fn endpoint(&self, id: EndpointId) -> Result<Option<Arc<EndpointEntry>>> {
        self.up()?;
        Ok(self.endpoints.lock().unwrap().get(&id).cloned())
    }
    async fn current(&self, jobs: &[(DeliveryId, u32, u32)]) -> Result<Vec<bool>> {
        self.up()?;
        self.checks.fetch_add(1, Ordering::SeqCst);
        let past = self.past.lock().unwrap();
        Ok(jobs.iter().map(|(delivery, ..)| !past.contains(delivery)).collect())
    }
    async fn payloads(&self, events: &[EventId]) -> Result<Vec<Option<Bytes>>> {
        self.up()?;
        let payloads = self.payloads.lock().unwrap();
        Ok(events.iter().map(|event| payloads.get(event).cloned()).collect())
    }
    fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::SeqCst))
    }
}

/// A resolver that returns the loopback for every name, unless a test gives other addresses.
#[derive(Default)]
pub(crate) struct Loopback {
    pub(crate) dials: AtomicUsize,
    pub(crate) error: Mutex<Option<DialError>>,
}

#[async_trait]
impl Dialer for Loopback {
    async fn dial(&self, _: &str, port: u16) -> Result<Socket, DialError> {
        self.dials.fetch_add(1, Ordering::SeqCst);
        if let Some(error) = self.error.lock().unwrap().clone() {
            return Err(error);
        }
        TcpStream::connect(("127.0.0.1", port))
            .await
            .map(Socket::from)
            .map_err(|_| DialError::ConnectFailed(NoConnection::Refused))
    }
}

/// Dispatch, which records what it settles.
#[derive(Default)]
pub(crate) struct FakeSettlement {
    pub(crate) settled: Mutex<Vec<JobReport>>,
    pub(crate) largest: AtomicUsize,
    pub(crate) refused: AtomicUsize,
    pub(crate) down: AtomicBool,
    /// The size of the largest batch that it accepts, in bytes; 0 for any.
    pub(crate) limit: AtomicUsize,
}

#[async_trait]
impl Settlement for FakeSettlement {
    async fn settle(&self, reports: Vec<JobReport>) -> Result<()> {
        let limit = self.limit.load(Ordering::SeqCst);
        if limit > 0 && reports.iter().map(JobReport::size).sum::<usize>() > limit {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(Error::new(outrider_model::Reason::TooLarge, "too large"));
        }
        if self.down.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(Error::unavailable("down"));
        }
        self.largest.fetch_max(reports.len(), Ordering::SeqCst);
        self.settled.lock().unwrap().extend(reports);
        Ok(())
    }
}
