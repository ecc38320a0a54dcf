//! Tracks the jobs in hand: their attempts must not begin twice, and their leases are renewed.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use outrider_failpoints::{Point, pass};
use outrider_model::Receipt;
use outrider_queue::Queue;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::held::Key;
use crate::backoff::Backoff;

/// The result of taking a job in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// The job is in hand from now on.
    New,
    /// The same job is in hand already.
    Again,
    /// The same attempt is in hand by a job of another generation.
    OtherGeneration,
}

struct Held {
    generation: u32,
    receipt: Receipt,
    /// Whether this worker has lost the job: another worker took it over, or the queue was emptied.
    lost: bool,
}

struct State {
    held: HashMap<Key, Held>,
    /// Start of the last renewal that succeeded for all jobs.
    renewed_at: Option<Instant>,
    /// Jobs read until then may have been given to another worker before a renewal. A renewal that
    /// came too late does not reveal that.
    doubted_until: Option<Instant>,
}

impl State {
    /// Records a renewal that succeeded for all jobs that are still ours.
    fn renewed(&mut self, began: Instant, ended: Instant, lease: Duration) {
        if self.renewed_at.is_none_or(|before| ended - before >= lease) {
            self.doubted_until = ended.checked_sub(lease);
        }
        self.renewed_at = Some(began);
    }

    fn sure(&self, read_at: Instant, lease: Duration) -> bool {
        let last = self.renewed_at.map_or(read_at, |renewed| renewed.max(read_at));
        self.doubted_until.is_none_or(|doubted| read_at > doubted) && last.elapsed() < lease
    }
}

/// The jobs in hand. Their number is bounded by the places that the reader takes.
pub(crate) struct Leases {
    queue: Arc<dyn Queue>,
    consumer: String,
    lease: Duration,
    batch: usize,
    state: Mutex<State>,
}

impl Leases {
    pub(crate) fn new(
        queue: Arc<dyn Queue>,
        consumer: String,
        lease: Duration,
        batch: usize,
    ) -> Self {
        let state =
            Mutex::new(State { held: HashMap::new(), renewed_at: None, doubted_until: None });
        Self { queue, consumer, lease, batch, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a job in hand, unless its attempt is in hand already.
    pub(crate) fn take(&self, key: Key, generation: u32, receipt: Receipt) -> Taken {
        match self.state().held.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(Held { generation, receipt, lost: false });
                Taken::New
            }
            Entry::Occupied(mut entry) if entry.get().generation == generation => {
                // The queue may have given the job another entry, which is then the one to
                // acknowledge.
                *entry.get_mut() = Held { generation, receipt, lost: false };
                Taken::Again
            }
            Entry::Occupied(_) => Taken::OtherGeneration,
        }
    }

    /// Returns the position of a job in hand in the queue.
    pub(crate) fn receipt(&self, key: Key) -> Option<Receipt> {
        self.state().held.get(&key).map(|held| held.receipt.clone())
    }

    /// Forgets jobs that are settled, or left to their leases.
    pub(crate) fn forget(&self, keys: impl IntoIterator<Item = Key>) {
        let mut state = self.state();
        for key in keys {
            state.held.remove(&key);
        }
    }

    /// Whether this worker is known to have lost a job in hand.
    pub(crate) fn lost(&self, key: Key) -> bool {
        self.state().held.get(&key).is_none_or(|held| held.lost)
    }

    /// Returns the number of jobs in hand.
    pub(crate) fn len(&self) -> usize {
        self.state().held.len()
    }

    /// Whether a job read at this time certainly still belongs to this worker, because nobody else
    /// can have got it since.
    pub(crate) fn sure(&self, read_at: Instant) -> bool {
        self.state().sure(read_at, self.lease)
    }

    /// Renews all leases every `period` until `stop`, and sooner after a failure. Calls `lost` with
    /// the jobs that this worker has lost.
    pub(crate) async fn keep(
        &self,
        period: Duration,
        stop: CancellationToken,
        lost: impl Fn(HashSet<Key>),
    ) {
        let mut backoff = Backoff::new();
        let mut wait = period;
        while stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_some() {
            wait = match self.renew().await {
                Ok(keys) => {
                    backoff.reset();
                    if !keys.is_empty() {
                        lost(keys);
                    }
                    period
                }
                Err(error) => {
                    tracing::warn!(%error, jobs = self.len(), "leases were not renewed");
                    backoff.step()
                }
            };
        }
    }

    async fn renew(&self) -> outrider_model::Result<HashSet<Key>> {
        let began = Instant::now();
        let held: Vec<(Key, Receipt)> = {
            let mut state = self.state();
            // Frees the memory that a backlog took.
            let used = state.held.len();
            state.held.shrink_to(2 * used);
            state.held.iter().map(|(key, held)| (*key, held.receipt.clone())).collect()
        };
        let (keys, receipts): (Vec<Key>, Vec<Receipt>) = held.into_iter().unzip();
        let mut gone = HashSet::new();
        for batch in receipts.chunks(self.batch) {
            pass(Point::BeforeRenew);
            gone.extend(self.queue.renew(&self.consumer, batch).await?);
            pass(Point::AfterRenew);
        }
        let mut state = self.state();
        state.renewed(began, Instant::now(), self.lease);
        let mut lost = HashSet::new();
        for (key, receipt) in
            keys.into_iter().zip(receipts).filter(|(_, receipt)| gone.contains(receipt))
        {
            // It may have been handed out again in the meantime, with another receipt.
            if let Some(held) = state.held.get_mut(&key).filter(|held| held.receipt == receipt) {
                held.lost = true;
                lost.insert(key);
            }
        }
        Ok(lost)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use outrider_model::{DeliveryId, EndpointId, EventId, Timestamp};

    use super::*;
    use crate::tests::{bench::until, fakes::FakeQueue};

    fn key(attempt: u32) -> Key {
        let event = EventId::new(Timestamp(0), 1);
        Key {
            delivery: DeliveryId::derive(Timestamp(0), event, EndpointId::new(Timestamp(0), 1), 0),
            attempt,
        }
    }

    fn receipt(entry: &str) -> Receipt {
        Receipt { shard: 0, entry: entry.to_owned(), epoch: 1 }
    }

    #[test]
    fn an_attempt_is_in_hand_once_and_has_its_last_receipt() {
        let leases =
            Leases::new(Arc::new(FakeQueue::default()), "c".into(), Duration::from_secs(45), 10);
        assert_eq!(leases.take(key(1), 1, receipt("a")), Taken::New);
        assert_eq!(leases.take(key(1), 1, receipt("b")), Taken::Again);
        assert_eq!(leases.take(key(1), 2, receipt("c")), Taken::OtherGeneration);
        assert_eq!(leases.take(key(2), 1, receipt("d")), Taken::New);
        assert_eq!(leases.receipt(key(1)), Some(receipt("b")));
        leases.forget([key(1)]);
        assert_eq!((leases.receipt(key(1)), leases.len()), (None, 1));
    }

    #[test]
    fn a_renewal_says_nothing_of_jobs_for_which_it_came_too_late() {
        let lease = Duration::from_secs(45);
        let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
        let mut state = State { held: HashMap::new(), renewed_at: None, doubted_until: None };
        let sure = |state: &State, read: u64| state.sure(ago(read), lease);
        state.renewed(ago(100), ago(100), lease);
        state.renewed(ago(60), ago(60), lease);
        assert!(
            !sure(&state, 90) && sure(&state, 30),
            "the last renewal is too long ago for those before it"
        );
        // The renewal began in time, and ended after jobs that were not renewed since had been
        // given away.
        state.renewed(ago(20), ago(10), lease);
        assert!(!sure(&state, 90) && !sure(&state, 56) && sure(&state, 50) && sure(&state, 0));
        state.renewed(ago(5), ago(5), lease);
        assert!(!sure(&state, 90) && sure(&state, 50), "what was in doubt stays so");
    }

    #[tokio::test]
    async fn all_are_renewed_in_batches_and_a_failure_soon_again() {
        let queue = Arc::new(FakeQueue::default());
        let leases =
            Arc::new(Leases::new(queue.clone(), "c".into(), Duration::from_millis(150), 2));
        for attempt in 1..=5 {
            leases.take(key(attempt), 1, receipt(&attempt.to_string()));
        }
        let read_at = Instant::now();
        assert!(leases.sure(read_at));
        queue.down.store(true, Ordering::SeqCst);
        let stop = CancellationToken::new();
        let keeping = tokio::spawn({
            let (leases, stop) = (Arc::clone(&leases), stop.clone());
            async move { leases.keep(Duration::from_millis(10), stop, drop).await }
        });
        until("the lease to run out", || !leases.sure(read_at)).await;
        queue.down.store(false, Ordering::SeqCst);
        until("a renewal", || queue.renewed.load(Ordering::SeqCst) >= 5).await;
        assert!(!leases.sure(read_at), "another worker may have had it in between");
        stop.cancel();
        keeping.await.unwrap();
    }
}
