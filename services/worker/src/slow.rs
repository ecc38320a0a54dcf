//! Endpoints that timed out lately: together they get only a share of the worker, so that those who hang cannot starve the rest.
//! Requests that were under way when their endpoint was first found slow do not count: the endpoint's own limit bounds them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use outrider_model::EndpointId;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// A bounded memory of timeouts, and the share that such endpoints have.
pub(crate) struct SlowEndpoints {
    timeouts: Mutex<HashMap<EndpointId, Instant>>,
    capacity: usize,
    memory: Duration,
    share: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

/// Whether a job may go on.
pub(crate) enum Admission {
    /// Its endpoint is not slow.
    Free,
    /// A part of the share is its own while it holds this.
    Share(OwnedSemaphorePermit),
    /// The share is used up; the job may wait for its turn.
    Wait(Turn),
    /// As many jobs wait as may.
    Full,
}

/// A place in the line of those who wait, first come, first served.
pub(crate) struct Turn {
    share: Arc<Semaphore>,
    _place: OwnedSemaphorePermit,
}

impl Turn {
    /// A part of the share; none when the worker ends.
    pub(crate) async fn come(self) -> Option<OwnedSemaphorePermit> {
        self.share.acquire_owned().await.ok()
    }
}

impl SlowEndpoints {
    /// Remembers up to `capacity` endpoints for `memory`; `share` of their jobs run and `waiting` wait.
    pub(crate) fn new(capacity: usize, memory: Duration, share: usize, waiting: usize) -> Self {
        Self {
            timeouts: Mutex::default(),
            capacity,
            memory,
            share: Arc::new(Semaphore::new(share)),
            waiting: Arc::new(Semaphore::new(waiting)),
        }
    }

    fn timeouts(&self) -> MutexGuard<'_, HashMap<EndpointId, Instant>> {
        self.timeouts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The endpoint used up its time.
    pub(crate) fn mark(&self, endpoint: EndpointId) {
        let mut timeouts = self.timeouts();
        if timeouts.len() >= self.capacity && !timeouts.contains_key(&endpoint) {
            timeouts.retain(|_, at| at.elapsed() < self.memory);
        }
        if timeouts.len() >= self.capacity
            && let Some(oldest) = timeouts.iter().min_by_key(|(_, at)| **at).map(|(oldest, _)| *oldest)
        {
            timeouts.remove(&oldest);
        }
        timeouts.insert(endpoint, Instant::now());
    }

    /// Whether it did so lately.
    pub(crate) fn contains(&self, endpoint: EndpointId) -> bool {
        let mut timeouts = self.timeouts();
        match timeouts.get(&endpoint) {
            Some(at) if at.elapsed() < self.memory => true,
            Some(_) => {
                timeouts.remove(&endpoint);
                false
            }
            None => false,
        }
    }

    /// Whether a job of this endpoint may be sent now.
    pub(crate) fn admit(&self, endpoint: EndpointId) -> Admission {
        if !self.contains(endpoint) {
            return Admission::Free;
        }
        if let Ok(share) = Arc::clone(&self.share).try_acquire_owned() {
            return Admission::Share(share);
        }
        match Arc::clone(&self.waiting).try_acquire_owned() {
            Ok(place) => Admission::Wait(Turn { share: Arc::clone(&self.share), _place: place }),
            Err(_) => Admission::Full,
        }
    }
}

#[cfg(test)]
mod tests {
    use outrider_model::Timestamp;

    use super::*;

    fn endpoint(number: u64) -> EndpointId {
        EndpointId::new(Timestamp(0), number)
    }

    #[tokio::test]
    async fn slow_endpoints_share_and_wait() {
        let slow = SlowEndpoints::new(2, Duration::from_secs(60), 1, 1);
        assert!(matches!(slow.admit(endpoint(1)), Admission::Free));
        slow.mark(endpoint(1));
        let Admission::Share(share) = slow.admit(endpoint(1)) else { panic!("the share was free") };
        let Admission::Wait(turn) = slow.admit(endpoint(1)) else { panic!("one may wait") };
        assert!(matches!(slow.admit(endpoint(1)), Admission::Full));
        assert!(matches!(slow.admit(endpoint(2)), Admission::Free));
        drop(share);
        assert!(turn.come().await.is_some());
    }

    #[test]
    fn a_timeout_is_forgiven_in_time() {
        let slow = SlowEndpoints::new(2, Duration::from_millis(5), 1, 1);
        slow.mark(endpoint(1));
        std::thread::sleep(Duration::from_millis(5));
        assert!(matches!(slow.admit(endpoint(1)), Admission::Free));
        assert!(slow.timeouts().is_empty());
    }

    #[test]
    fn the_oldest_is_forgotten_when_too_many_are_slow() {
        let slow = SlowEndpoints::new(2, Duration::from_secs(60), 1, 1);
        for number in 1..=3 {
            slow.mark(endpoint(number));
        }
        assert!(matches!(slow.admit(endpoint(1)), Admission::Free));
        assert!(matches!(slow.admit(endpoint(2)), Admission::Share(_)));
        assert!(matches!(slow.admit(endpoint(3)), Admission::Share(_)));
        assert_eq!(slow.timeouts().len(), 2);
    }
}
