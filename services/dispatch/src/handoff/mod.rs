//! From the database to the queue: puts jobs of committed deliveries on the queue and takes back
//! the mark of those that it refused. Also knows which endpoints are congested (their window was
//! full lately), so that new deliveries to them are born unqueued, and what epoch each shard has.

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

/// Jobs in one round trip to the queue, about, and those of one project that go together.
const BATCH: usize = 256;
const TURN: usize = 32;
/// Round trips whose refused jobs are written down at once.
const LEFTOVERS_AT_ONCE: usize = 8;
/// Endpoints remembered as congested. Beyond, new deliveries are tried and refused by the queue,
/// which costs an update more.
const MAX_CONGESTED: usize = 100_000;

/// A cheap handle.
#[derive(Clone)]
pub struct Handoff {
    inner: Arc<Inner>,
}

/// What the feeder is asked to look at before its next period.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// All endpoints: what is due may be anywhere.
    pub all: bool,
    /// These: they got room, or something of theirs became due.
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

    /// The epoch that a new delivery to this endpoint is born with; none when it must wait in the
    /// database first: the queue is not reachable, or the endpoint's window is full.
    pub fn birth_epoch(&self, endpoint: EndpointId) -> Option<i64> {
        if !self.inner.available.load(Ordering::Relaxed) || self.congested().contains(&endpoint) {
            return None;
        }
        self.epoch(endpoint)
    }

    /// The epoch of the shard of an endpoint, if it is known.
    pub fn epoch(&self, endpoint: EndpointId) -> Option<i64> {
        let shard = self.inner.shared.queue.shard(endpoint) as usize;
        self.inner.epochs.load().get(shard).copied()
    }

    /// Puts jobs of committed deliveries on the queue, soon. What finds no place here goes by the
    /// feeder.
    pub async fn submit(&self, jobs: Vec<NewJob>) {
        let refused = self.line_up(jobs);
        self.inner.filled.notify_one();
        self.take_back(&refused).await;
    }

    /// Lets jobs wait for their turn; those that find no room.
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

    /// The next in turn; none when none waits.
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

    /// The epochs as the queue says they are.
    pub fn set_epochs(&self, epochs: Vec<i64>) {
        self.inner.epochs.store(Arc::new(epochs));
        self.inner.available.store(true, Ordering::Relaxed);
    }

    /// The queue does not answer.
    pub fn set_unavailable(&self) {
        self.inner.available.store(false, Ordering::Relaxed);
    }

    /// Wakes the feeder to look at all endpoints.
    pub fn feed_all(&self) {
        self.wish().all = true;
        self.inner.feed.notify_one();
    }

    /// Wakes the feeder to look at these endpoints.
    pub fn feed(&self, endpoints: impl IntoIterator<Item = EndpointId>) {
        self.wish().endpoints.extend(endpoints);
        self.inner.feed.notify_one();
    }

    /// Returns when the feeder was woken, with what it was woken for.
    pub async fn feeder_woken(&self) -> Wish {
        self.inner.feed.notified().await;
        std::mem::take(&mut *self.wish())
    }

    fn wish(&self) -> MutexGuard<'_, Wish> {
        self.inner.wish.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the queue said that an epoch is not what was known.
    pub async fn epochs_doubted(&self) {
        self.inner.epochs_doubted.notified().await;
    }

    /// Whether the feeder has something to do when an endpoint gets room.
    pub fn is_congested(&self, endpoint: EndpointId) -> bool {
        self.congested().contains(&endpoint)
    }

    /// Nothing of the endpoint was found to wait in the database any more. What was born meanwhile
    /// may: if it was congested, the feeder looks once more.
    pub fn relieve(&self, endpoint: EndpointId) {
        if self.congested().remove(&endpoint) {
            self.feed([endpoint]);
        }
    }

    /// Wakes the feeder for endpoints of which something waits and which nothing else leads to:
    /// those that are not congested.
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

    /// Something of the endpoint waits in the database.
    pub fn congest(&self, endpoint: EndpointId) {
        let mut congested = self.congested();
        if congested.len() < MAX_CONGESTED {
            congested.insert(endpoint);
        }
    }

    /// How many endpoints are congested.
    pub fn congested_count(&self) -> usize {
        self.congested().len()
    }

    fn congested(&self) -> MutexGuard<'_, HashSet<EndpointId>> {
        self.inner.congested.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self) {
        // Bounded by the room that what is left over keeps.
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

    /// Writes down what the queue did not take. That waits for the database, and the jobs behind,
    /// which may be of other organizations, do not wait for it.
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
        // Room may have come before they could be found.
        self.feed_uncongested(leftover.full);
        self.check_soon(&leftover.present).await;
    }

    /// Puts marked jobs on the queue and deals with each answer; the endpoints of those that were
    /// refused.
    pub async fn enqueue(&self, jobs: Vec<NewJob>) -> HashSet<EndpointId> {
        let (leftover, refused) = self.offer_due(jobs).await;
        self.write_down(leftover).await;
        refused
    }

    /// Puts marked jobs on the queue; what is to be written down of the others, and the endpoints
    /// of those that were refused.
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

    /// Takes out what waited here for too long: it goes by the feeder. From its time of check on, a
    /// delivery that the queue does not have yet counts as lost and gets another job; this one
    /// would be sent besides, if it came after the other was done. Half of the time until then is
    /// left for the queue's answer.
    fn too_late(&self, jobs: &mut Vec<NewJob>) -> Vec<NewJob> {
        let Shared { options, store, .. } = &self.inner.shared;
        // The clock by which deliveries are asked after.
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
                // Whether they are queued is unknown. Taking the marks back is safe: what is queued
                // answers Present later.
                tracing::warn!(%error, jobs = jobs.len(), "jobs were not queued; they go by the \
                    feeder");
                self.set_unavailable();
                vec![Enqueued::WrongEpoch; jobs.len()]
            }
        }
    }

    /// An older job of these deliveries still has its place. It may be sent, or be on its way out:
    /// look again in a moment.
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
        // If this fails too, the rows are found when they are asked after.
        if let Err(error) = self.inner.shared.ledger.unqueue(refused).await {
            tracing::warn!(%error, deliveries = refused.len(),
                "deliveries stay marked as queued until they are asked after");
        }
        pass(Point::AfterUnmark);
    }
}
