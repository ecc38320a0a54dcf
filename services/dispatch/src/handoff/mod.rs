//! From the database to the queue: puts jobs of committed deliveries on the queue, and takes back
//! the marks of jobs that it refused. It also knows the epoch of each shard, and which endpoints
//! are congested (their window was full lately), so that new deliveries to them are written
//! unmarked.

mod waiting;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use outrider_failpoints::{Point, pass};
use outrider_model::{DeliveryId, EndpointId, FairShares};
use outrider_queue::{Enqueued, NewJob};
use outrider_telemetry::essential;
use tokio::sync::{Notify, mpsc};

use self::waiting::{Leftover, OnTheirWay, Room, kib_of, owner};
use crate::{fair_queue::FairQueue, measure, shared::Shared};

/// About how many jobs go in one round trip to the queue, and how many of one project go together.
const BATCH: usize = 256;
const TURN: usize = 32;
/// For how many round trips the refused jobs are recorded at once.
const LEFTOVERS_AT_ONCE: usize = 8;
/// How many congested endpoints are remembered. New deliveries to further ones are offered to the
/// queue and refused, which costs one more update.
const MAX_CONGESTED: usize = 100_000;

/// A handle that is cheap to clone.
#[derive(Clone)]
pub struct Handoff {
    inner: Arc<Inner>,
}

/// What the feeder is asked to examine before its next period.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// All endpoints, because due deliveries may be anywhere.
    pub all: bool,
    /// Endpoints that got room, or of which a delivery became due.
    pub endpoints: HashSet<EndpointId>,
}

struct Inner {
    shared: Shared,
    on_their_way: Mutex<OnTheirWay>,
    filled: Notify,
    epochs: ArcSwap<Vec<i64>>,
    available: AtomicBool,
    congested: Mutex<HashSet<EndpointId>>,
    wish: Mutex<Wish>,
    feed: Notify,
    epochs_doubted: Notify,
}

impl Handoff {
    /// Starts the task that puts jobs on the queue.
    pub fn start(shared: Shared) -> Self {
        let room = u32::try_from(shared.options.handoff_queue_bytes / 1024).unwrap_or(u32::MAX);
        let handoff = Self {
            inner: Arc::new(Inner {
                shared,
                on_their_way: Mutex::new(OnTheirWay {
                    line: FairQueue::new(),
                    room: FairShares::new(room),
                }),
                filled: Notify::new(),
                epochs: ArcSwap::default(),
                available: AtomicBool::new(false),
                congested: Mutex::default(),
                wish: Mutex::default(),
                feed: Notify::new(),
                epochs_doubted: Notify::new(),
            }),
        };
        tokio::spawn(essential("handoff", handoff.clone().run()));
        handoff
    }

    /// Returns the epoch with which a new delivery to this endpoint is written. `None` if it must
    /// first wait in the database, because the queue is not reachable or the endpoint's window is
    /// full.
    pub fn birth_epoch(&self, endpoint: EndpointId) -> Option<i64> {
        if !self.inner.available.load(Ordering::Relaxed) || self.congested().contains(&endpoint) {
            return None;
        }
        self.epoch(endpoint)
    }

    /// Returns the epoch of an endpoint's shard, if it is known.
    pub fn epoch(&self, endpoint: EndpointId) -> Option<i64> {
        let shard = self.inner.shared.queue.shard(endpoint) as usize;
        self.inner.epochs.load().get(shard).copied()
    }

    /// Has jobs of committed deliveries put on the queue soon. Jobs that find no room here are left
    /// to the feeder.
    pub async fn submit(&self, jobs: Vec<NewJob>) {
        let refused = self.line_up(jobs);
        self.inner.filled.notify_one();
        self.take_back(&refused).await;
    }

    /// Puts jobs in line. Returns those that find no room.
    fn line_up(&self, jobs: Vec<NewJob>) -> Vec<(DeliveryId, u32)> {
        let (mut refused, mut group): (Vec<_>, Vec<NewJob>) = (Vec::new(), Vec::new());
        let mut on_their_way = self.on_their_way();
        let OnTheirWay { line, room } = &mut *on_their_way;
        let mut close = |group: &mut Vec<NewJob>| {
            if let Some(first) = group.first() {
                line.push(owner(first), group.len(), std::mem::take(group));
            }
        };
        for job in jobs {
            let kib = kib_of(&job).min(room.largest_amount());
            if !room.try_take(&job.job.recipient, kib) {
                refused.push((job.job.delivery, job.job.generation));
                continue;
            }
            if group.len() >= TURN || group.first().is_some_and(|first| owner(first) != owner(&job))
            {
                close(&mut group);
            }
            group.push(job);
        }
        close(&mut group);
        refused
    }

    /// Returns the next jobs in turn, or none.
    fn next_batch(&self) -> Vec<NewJob> {
        let mut on_their_way = self.on_their_way();
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Some((_, group)) = on_their_way.line.pop()
        {
            batch.extend(group);
        }
        batch
    }

    fn on_their_way(&self) -> MutexGuard<'_, OnTheirWay> {
        self.inner.on_their_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the epochs that the queue reported.
    pub fn set_epochs(&self, epochs: Vec<i64>) {
        self.inner.epochs.store(Arc::new(epochs));
        self.inner.available.store(true, Ordering::Relaxed);
    }

    /// Records that the queue does not answer.
    pub fn set_unavailable(&self) {
        self.inner.available.store(false, Ordering::Relaxed);
    }

    /// Wakes the feeder for all endpoints.
    pub fn feed_all(&self) {
        self.wish().all = true;
        self.inner.feed.notify_one();
    }

    /// Wakes the feeder for these endpoints.
    pub fn feed(&self, endpoints: impl IntoIterator<Item = EndpointId>) {
        self.wish().endpoints.extend(endpoints);
        self.inner.feed.notify_one();
    }

    /// Returns when the feeder is woken, with the reason.
    pub async fn feeder_woken(&self) -> Wish {
        self.inner.feed.notified().await;
        std::mem::take(&mut *self.wish())
    }

    fn wish(&self) -> MutexGuard<'_, Wish> {
        self.inner.wish.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the queue has reported another epoch than the known one.
    pub async fn epochs_doubted(&self) {
        self.inner.epochs_doubted.notified().await;
    }

    /// Whether the feeder has work when this endpoint gets room.
    pub fn is_congested(&self, endpoint: EndpointId) -> bool {
        self.congested().contains(&endpoint)
    }

    /// Called when no delivery of the endpoint was found waiting in the database. New ones may have
    /// been written since, so if it was congested, the feeder checks once more.
    pub fn relieve(&self, endpoint: EndpointId) {
        if self.congested().remove(&endpoint) {
            self.feed([endpoint]);
        }
    }

    /// Wakes the feeder for those of these endpoints that are not congested. Deliveries of theirs
    /// wait, and nothing else would lead the feeder to them.
    pub fn feed_uncongested(&self, endpoints: impl IntoIterator<Item = EndpointId>) {
        if !self.inner.available.load(Ordering::Relaxed) {
            return;
        }
        let missed: Vec<EndpointId> = {
            let congested = self.congested();
            endpoints.into_iter().filter(|endpoint| !congested.contains(endpoint)).collect()
        };
        if !missed.is_empty() {
            self.feed(missed);
        }
    }

    /// Records that a delivery of the endpoint waits in the database.
    pub fn congest(&self, endpoint: EndpointId) {
        let mut congested = self.congested();
        if congested.len() < MAX_CONGESTED {
            congested.insert(endpoint);
        }
    }

    /// Returns the number of congested endpoints.
    pub fn congested_count(&self) -> usize {
        self.congested().len()
    }

    fn congested(&self) -> MutexGuard<'_, HashSet<EndpointId>> {
        self.inner.congested.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self) {
        // The room that leftover jobs keep bounds this channel.
        let (leave, leftovers) = mpsc::unbounded_channel();
        tokio::spawn(essential("leftovers", self.clone().write_down_all(leftovers)));
        loop {
            let batch = self.next_batch();
            if batch.is_empty() {
                self.inner.filled.notified().await;
                continue;
            }
            let room = self.on_their_way().room_of(&batch);
            let (leftover, _) = self.offer_due(batch).await;
            self.on_their_way().give_back(&room, &leftover.room);
            if !leftover.is_empty() && leave.send(leftover).is_err() {
                return;
            }
        }
    }

    /// Records the jobs that the queue did not take. This waits for the database, but the jobs
    /// behind them, which may belong to other organizations, do not.
    async fn write_down_all(self, mut leftovers: mpsc::UnboundedReceiver<Leftover>) {
        let mut waiting = Vec::with_capacity(LEFTOVERS_AT_ONCE);
        while leftovers.recv_many(&mut waiting, LEFTOVERS_AT_ONCE).await > 0 {
            let mut all = waiting.drain(..).fold(Leftover::default(), Leftover::and);
            let room = std::mem::take(&mut all.room);
            self.write_down(all).await;
            self.on_their_way().give_back(&room, &Room::new());
        }
    }

    async fn write_down(&self, leftover: Leftover) {
        self.take_back(&leftover.refused).await;
        // Room may have been freed before the feeder could find them.
        self.feed_uncongested(leftover.full);
        self.check_soon(&leftover.present).await;
    }

    /// Puts marked jobs on the queue and handles each result. Returns the endpoints of refused
    /// jobs.
    pub async fn enqueue(&self, jobs: Vec<NewJob>) -> HashSet<EndpointId> {
        let (leftover, refused) = self.offer_due(jobs).await;
        self.write_down(leftover).await;
        refused
    }

    /// Puts marked jobs on the queue. Returns what must be recorded about the others, and the
    /// endpoints of refused jobs.
    async fn offer_due(&self, mut jobs: Vec<NewJob>) -> (Leftover, HashSet<EndpointId>) {
        let late = self.too_late(&mut jobs);
        let answers = self.offer(&jobs).await;
        let mut refused: Vec<&NewJob> = late.iter().collect();
        let (mut full, mut present) = (Vec::new(), Vec::new());
        for (job, answer) in jobs.iter().zip(answers) {
            match answer {
                Enqueued::Queued => continue,
                Enqueued::Present => {
                    present.push(job);
                    continue;
                }
                Enqueued::Full => {
                    self.congest(job.endpoint());
                    full.push(job.endpoint());
                }
                Enqueued::WrongEpoch => self.inner.epochs_doubted.notify_one(),
            }
            refused.push(job);
        }
        let endpoints = refused.iter().map(|job| job.endpoint()).collect();
        let room = self.on_their_way().room_of(refused.iter().chain(&present).copied());
        (Leftover::of(&refused, &present, full, room), endpoints)
    }

    /// Removes jobs that waited here for too long, and leaves them to the feeder. After
    /// `check_after`, a delivery that the queue does not have counts as lost and gets another job;
    /// this one would then be sent in addition, if it arrived after the other was done. Half of
    /// that time is reserved for the queue's answer.
    fn too_late(&self, jobs: &mut Vec<NewJob>) -> Vec<NewJob> {
        let Shared { options, store, .. } = &self.inner.shared;
        // The same clock decides when the queue is asked about deliveries.
        let oldest = store.clock().now().minus(options.check_after / 2);
        let late: Vec<NewJob> = jobs.extract_if(.., |job| job.job.queued_at < oldest).collect();
        if !late.is_empty() {
            measure::too_late(late.len());
            tracing::warn!(
                jobs = late.len(),
                "jobs waited too long for the queue or the database; they go by the feeder"
            );
        }
        late
    }

    async fn offer(&self, jobs: &[NewJob]) -> Vec<Enqueued> {
        pass(Point::BeforeEnqueue);
        let offered = self.inner.shared.queue.enqueue(jobs).await;
        pass(Point::AfterEnqueue);
        match offered {
            Ok(answers) => {
                measure::offered(&answers);
                answers
            }
            Err(error) => {
                measure::not_offered(jobs.len());
                // It is unknown whether they are queued. Taking back the marks is safe, because a
                // job that is queued is reported as `Present` later.
                tracing::warn!(%error, jobs = jobs.len(), "jobs were not queued; they go by the \
                    feeder");
                self.set_unavailable();
                vec![Enqueued::WrongEpoch; jobs.len()]
            }
        }
    }

    /// Older jobs of these deliveries still have their places. They may be sent or be about to be
    /// removed, so check again soon.
    async fn check_soon(&self, present: &[(DeliveryId, u32)]) {
        if present.is_empty() {
            return;
        }
        let Shared { ledger, options, store, .. } = &self.inner.shared;
        let check_at = store.clock().now().plus(2 * options.feed_period);
        if let Err(error) = ledger.extend(present, check_at).await {
            tracing::warn!(%error, "deliveries keep their time of check");
        }
    }

    async fn take_back(&self, refused: &[(DeliveryId, u32)]) {
        if refused.is_empty() {
            return;
        }
        pass(Point::BeforeUnmark);
        // If this fails as well, the rows are found by the check of unsettled deliveries.
        if let Err(error) = self.inner.shared.ledger.unqueue(refused).await {
            tracing::warn!(%error, deliveries = refused.len(),
                "deliveries stay marked as queued until they are asked after");
        }
        pass(Point::AfterUnmark);
    }
}
