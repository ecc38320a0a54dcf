//! The queue in memory, for one process. Its jobs are lost when the process ends, and the feeder
//! queues them again.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use outrider_model::{DeliveryId, EndpointId, Job, Receipt, Recipient, Result};
use outrider_telemetry::{catalog::queue::SECTION, metrics};
use tokio::{sync::Notify, time::Instant};

use crate::{
    Done, Enqueued, LeasedJob, NewJob, Options, Queue,
    changes::Changes,
    shard::{random_epoch, shard_of},
};

mod window;

use window::Window;

/// The queue in memory. Each queue chooses a new epoch, so rows that an earlier process queued are
/// known not to be in it.
pub struct EmbeddedQueue {
    epoch: i64,
    lease: Duration,
    shards: Vec<Mutex<Window>>,
    arrived: Notify,
    changes: Changes,
}

impl EmbeddedQueue {
    /// Creates an empty queue. Only the window, the lease and the number of shards matter. More
    /// than one shard is useful in tests only, because no lock is held for long.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        metrics::expose(&SECTION);
        let shards =
            (0..options.shards.max(1)).map(|_| Mutex::new(Window::new(options.window))).collect();
        Self {
            epoch: random_epoch(),
            lease: options.lease,
            shards,
            arrived: Notify::new(),
            changes: Changes::default(),
        }
    }

    fn window(&self, shard: u32) -> Option<MutexGuard<'_, Window>> {
        self.shards.get(shard as usize).map(locked)
    }

    fn shard_count(&self) -> u32 {
        u32::try_from(self.shards.len()).unwrap_or(u32::MAX)
    }

    /// Takes up to `max` waiting jobs, and says whether more are waiting.
    fn take(&self, consumer: &str, max: usize) -> (Vec<LeasedJob>, bool) {
        let until = Instant::now() + self.lease;
        let mut jobs = Vec::new();
        let mut more = false;
        // Begin with another shard each time, so a busy shard does not starve the others.
        let first = rand::random_range(0..self.shards.len());
        for offset in 0..self.shards.len() {
            let shard = (first + offset) % self.shards.len();
            let mut window = locked(&self.shards[shard]);
            for (entry, job) in window.take(consumer, max - jobs.len(), until) {
                jobs.push(self.leased(shard, entry, job, true));
            }
            more |= window.waits();
        }
        (jobs, more)
    }

    fn leased(&self, shard: usize, entry: u64, job: Arc<Job>, first: bool) -> LeasedJob {
        let shard = u32::try_from(shard).unwrap_or(u32::MAX);
        LeasedJob {
            job,
            receipt: Receipt { shard, entry: entry.to_string(), epoch: self.epoch },
            first,
        }
    }

    /// Returns the entry that a receipt names, if it belongs to this queue.
    fn entry(&self, receipt: &Receipt) -> Option<u64> {
        (receipt.epoch == self.epoch).then(|| receipt.entry.parse().ok()).flatten()
    }
}

fn locked(window: &Mutex<Window>) -> MutexGuard<'_, Window> {
    window.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Queue for EmbeddedQueue {
    fn shard(&self, endpoint: EndpointId) -> u32 {
        shard_of(endpoint, self.shard_count())
    }

    async fn epochs(&self) -> Result<Vec<i64>> {
        Ok(vec![self.epoch; self.shards.len()])
    }

    async fn enqueue(&self, jobs: &[NewJob]) -> Result<Vec<Enqueued>> {
        let results: Vec<_> = jobs
            .iter()
            .map(|job| {
                if job.job.epoch != self.epoch {
                    return Enqueued::WrongEpoch;
                }
                self.window(self.shard(job.endpoint()))
                    .map_or(Enqueued::Full, |mut window| window.add(job))
            })
            .collect();
        if results.contains(&Enqueued::Queued) {
            // A reader takes what it can hold, and wakes the next if jobs are left.
            self.arrived.notify_one();
        }
        Ok(results)
    }

    async fn read(&self, consumer: &str, max: usize, wait: Duration) -> Result<Vec<LeasedJob>> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let deadline = Instant::now() + wait;
        loop {
            // A job that arrives after the check is not missed: `notify_one` leaves a permit if
            // nobody waits yet.
            let (jobs, more) = self.take(consumer, max);
            if more {
                self.arrived.notify_one();
            }
            if !jobs.is_empty()
                || tokio::time::timeout_at(deadline, self.arrived.notified()).await.is_err()
            {
                return Ok(jobs);
            }
        }
    }

    async fn reclaim(&self, consumer: &str, max: usize) -> Result<Vec<LeasedJob>> {
        let now = Instant::now();
        let mut jobs = Vec::new();
        for (shard, window) in self.shards.iter().enumerate() {
            for (entry, job) in
                locked(window).reclaim(consumer, max - jobs.len(), now, now + self.lease)
            {
                jobs.push(self.leased(shard, entry, job, false));
            }
        }
        Ok(jobs)
    }

    async fn renew(&self, consumer: &str, receipts: &[Receipt]) -> Result<Vec<Receipt>> {
        let until = Instant::now() + self.lease;
        let renewed = |receipt: &&Receipt| match (self.entry(receipt), self.window(receipt.shard)) {
            (Some(entry), Some(mut window)) => window.renew(consumer, entry, until),
            _ => false,
        };
        Ok(receipts.iter().filter(|receipt| !renewed(receipt)).cloned().collect())
    }

    async fn finish(&self, done: &[Done]) -> Result<()> {
        for done in done {
            if let (Some(entry), Some(mut window)) =
                (self.entry(&done.receipt), self.window(done.receipt.shard))
            {
                window.finish(entry, done.generation);
            }
        }
        Ok(())
    }

    async fn held(&self, deliveries: &[(EndpointId, DeliveryId)]) -> Result<Vec<Option<u32>>> {
        Ok(deliveries
            .iter()
            .map(|(endpoint, delivery)| {
                self.window(self.shard(*endpoint)).and_then(|window| window.held(*delivery))
            })
            .collect())
    }

    async fn room(&self, endpoints: &[(Recipient, u32)]) -> Result<Vec<u32>> {
        let room = |(who, limit): &(Recipient, u32)| {
            self.window(self.shard(who.endpoint)).map_or(0, |window| window.room(who, *limit))
        };
        Ok(endpoints.iter().map(room).collect())
    }

    async fn depths(&self) -> Result<Vec<u64>> {
        Ok(self.shards.iter().map(|window| locked(window).depth() as u64).collect())
    }

    async fn announce_change(&self) -> Result<()> {
        self.changes.announce();
        Ok(())
    }

    async fn change_announced(&self) {
        self.changes.announced().await;
    }
}
