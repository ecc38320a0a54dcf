//! One shard of the embedded queue: the jobs that wait, the jobs that consumers hold and until
//! when, and how much of the window each endpoint, project and organization uses.

use std::{
    collections::{BTreeMap, HashMap, VecDeque, btree_map, hash_map},
    hash::Hash,
    sync::Arc,
};

use outrider_model::{DeliveryId, EndpointId, FairShares, Job, Recipient};
use tokio::time::Instant;

use crate::{Enqueued, NewJob};

pub(super) struct Window {
    size: u32,
    next_entry: u64,
    waiting: VecDeque<(u64, Slot)>,
    /// Ordered by entry, so jobs that are taken over keep their order.
    taken: BTreeMap<u64, Lease>,
    held: HashMap<DeliveryId, u32>,
    /// The number of jobs of each endpoint.
    by_endpoint: HashMap<EndpointId, u32>,
    /// The units of each endpoint, project and organization.
    shares: FairShares,
}

struct Slot {
    job: Arc<Job>,
    units: u32,
}

struct Lease {
    slot: Slot,
    consumer: String,
    until: Instant,
}

impl Window {
    pub(super) fn new(size: u32) -> Self {
        Self {
            size,
            next_entry: 1,
            waiting: VecDeque::new(),
            taken: BTreeMap::new(),
            held: HashMap::new(),
            by_endpoint: HashMap::new(),
            shares: FairShares::new(size),
        }
    }

    /// Queues the job, unless its delivery is already here or a limit is reached.
    pub(super) fn add(&mut self, new: &NewJob) -> Enqueued {
        let Job { delivery, recipient, generation, .. } = &*new.job;
        if self.held.contains_key(delivery) {
            return Enqueued::Present;
        }
        let units = new.units(self.size);
        let full = self.of_endpoint(new.endpoint()) >= new.endpoint_limit;
        if full || !self.shares.try_take(recipient, units) {
            return Enqueued::Full;
        }
        self.held.insert(*delivery, *generation);
        *self.by_endpoint.entry(new.endpoint()).or_default() += 1;
        let slot = Slot { job: Arc::clone(&new.job), units };
        self.waiting.push_back((self.next_entry, slot));
        self.next_entry += 1;
        Enqueued::Queued
    }

    /// Takes the first waiting jobs, up to `max`. The consumer then holds them.
    pub(super) fn take(
        &mut self,
        consumer: &str,
        max: usize,
        until: Instant,
    ) -> Vec<(u64, Arc<Job>)> {
        let count = max.min(self.waiting.len());
        let mut jobs = Vec::with_capacity(count);
        for (entry, slot) in self.waiting.drain(..count) {
            jobs.push((entry, Arc::clone(&slot.job)));
            self.taken.insert(entry, Lease { slot, consumer: consumer.to_owned(), until });
        }
        jobs
    }

    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes up to `max` jobs whose lease ran out. The consumer then holds them.
    pub(super) fn reclaim(
        &mut self,
        consumer: &str,
        max: usize,
        now: Instant,
        until: Instant,
    ) -> Vec<(u64, Arc<Job>)> {
        self.give_back_room();
        let expired = self.taken.iter_mut().filter(|(_, lease)| lease.until <= now).take(max);
        expired
            .map(|(entry, lease)| {
                consumer.clone_into(&mut lease.consumer);
                lease.until = until;
                (*entry, Arc::clone(&lease.slot.job))
            })
            .collect()
    }

    /// Frees the memory that a backlog used once it is gone.
    fn give_back_room(&mut self) {
        self.held.shrink_to(2 * self.held.len());
        self.by_endpoint.shrink_to(2 * self.by_endpoint.len());
        self.waiting.shrink_to(2 * self.waiting.len());
    }

    /// Renews the lease. Returns false if the consumer no longer holds the job.
    pub(super) fn renew(&mut self, consumer: &str, entry: u64, until: Instant) -> bool {
        let Some(lease) = self.taken.get_mut(&entry).filter(|lease| lease.consumer == consumer)
        else {
            return false;
        };
        lease.until = until;
        true
    }

    /// Removes a held job. A later generation has another entry and stays.
    pub(super) fn finish(&mut self, entry: u64, generation: u32) {
        let btree_map::Entry::Occupied(lease) = self.taken.entry(entry) else { return };
        if lease.get().slot.job.generation != generation {
            return;
        }
        let slot = lease.remove().slot;
        let Job { delivery, recipient, .. } = &*slot.job;
        self.held.remove(delivery);
        decrement(&mut self.by_endpoint, recipient.endpoint);
        self.shares.give_back(recipient, slot.units);
    }

    pub(super) fn held(&self, delivery: DeliveryId) -> Option<u32> {
        self.held.get(&delivery).copied()
    }

    /// Returns how many more jobs of one unit fit, for an endpoint with this limit.
    pub(super) fn room(&self, who: &Recipient, limit: u32) -> u32 {
        limit.saturating_sub(self.of_endpoint(who.endpoint)).min(self.shares.room(who))
    }

    fn of_endpoint(&self, endpoint: EndpointId) -> u32 {
        self.by_endpoint.get(&endpoint).copied().unwrap_or(0)
    }

    pub(super) fn depth(&self) -> usize {
        self.held.len()
    }
}

/// Decrements a count and removes it at zero, so memory is bounded by the jobs that are held.
fn decrement<K: Eq + Hash>(counts: &mut HashMap<K, u32>, key: K) {
    if let hash_map::Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}
