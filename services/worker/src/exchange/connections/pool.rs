//! The pool of idle connections.
//!
//! hyper-util's pooling client lacks three things that our promises need: it does not return a
//! request that was never sent, it does not guarantee a new connection for the second try, and it
//! does not bound the total number of idle connections.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use outrider_model::OrganizationId;
use tokio::time::Instant;

use super::{
    connection::Connection,
    origins::{Known, Met, Timeouts},
};

/// How many origins are considered to find one with many idle connections. The first ones are
/// taken.
const LOOKED_AT: usize = 16;

struct Idle {
    connection: Connection,
    /// The organization whose endpoint used it last.
    by: OrganizationId,
    since: Instant,
}

impl Idle {
    /// Returns the time after which the other side ended it, as far as its task has noticed.
    fn ended_after(&self) -> Option<Duration> {
        self.connection.watch.ended().map(|at| at.saturating_duration_since(self.since))
    }

    fn is_good(&self) -> bool {
        self.connection.sender.is_ready() && self.connection.watch.is_intact()
    }
}

/// A connection from the pool.
pub(crate) struct Reused {
    pub(crate) connection: Connection,
    /// How long the connection was idle.
    pub(crate) idle: Duration,
}

struct State {
    origins: HashMap<Arc<str>, Vec<Idle>>,
    total: usize,
    known: Known,
}

impl State {
    /// Closes the oldest idle connection of an origin that has more than `own`. Returns whether it
    /// found one.
    fn make_room(&mut self, own: usize) -> bool {
        let some = self.origins.iter().take(LOOKED_AT);
        let Some((origin, most)) =
            some.max_by_key(|(_, idle)| idle.len()).filter(|(_, idle)| idle.len() > own)
        else {
            return false;
        };
        let (origin, last) = (Arc::clone(origin), most.len() == 1);
        if last {
            self.origins.remove(&origin);
        } else if let Some(idle) = self.origins.get_mut(&origin) {
            idle.remove(0);
        }
        self.total -= 1;
        true
    }
}

/// Idle connections, bounded per origin and in total.
pub(crate) struct Pool {
    state: Mutex<State>,
    per_origin: usize,
    total: usize,
}

impl Pool {
    pub(crate) fn new(per_origin: usize, total: usize, timeouts: Timeouts) -> Self {
        let state = State { origins: HashMap::new(), total: 0, known: Known::new(total, timeouts) };
        Self { state: Mutex::new(state), per_origin, total }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the most recently used connection to this origin, if it still seems usable.
    pub(crate) fn take(&self, met: Met<'_>) -> Option<Reused> {
        loop {
            let (idle, time) = self.pop(met.origin)?;
            let age = idle.since.elapsed();
            if age >= time || !idle.is_good() {
                continue;
            }
            // A system call, outside the lock.
            if idle.connection.is_quiet() {
                return Some(Reused { connection: idle.connection, idle: age });
            }
            self.state().known.ended(met, age, Instant::now());
        }
    }

    /// Returns the most recently used idle connection, and how long such a connection is useful.
    fn pop(&self, origin: &Arc<str>) -> Option<(Idle, Duration)> {
        let mut state = self.state();
        let idle = state.origins.get_mut(origin)?.pop()?;
        state.total -= 1;
        if let Some(after) = idle.ended_after() {
            state.known.ended(Met { origin, by: idle.by }, after, Instant::now());
        }
        let time = state.known.time(origin);
        Some((idle, time))
    }

    /// Records that a connection that was idle for this long ended when it was used again.
    pub(crate) fn met_its_end(&self, met: Met<'_>, idle: Duration) {
        self.state().known.met(met, idle, Instant::now());
    }

    /// Returns the number of idle connections.
    pub(crate) fn idle(&self) -> usize {
        self.state().total
    }

    /// Keeps an idle connection, if there is room. If there is none, an origin with more
    /// connections loses one. Otherwise a few origins with many idle connections would keep all
    /// others from having any. `told` is the time for which its last response said that it would be
    /// kept.
    pub(crate) fn put(&self, met: Met<'_>, connection: Connection, told: Option<Duration>) {
        let Met { origin, by } = met;
        let mut state = self.state();
        if let Some(told) = told {
            state.known.told(met, told, Instant::now());
        }
        if state.known.time(origin).is_zero() {
            return;
        }
        let own = state.origins.get(origin).map_or(0, Vec::len);
        if own >= self.per_origin || (state.total >= self.total && !state.make_room(own)) {
            return;
        }
        state.origins.entry(Arc::clone(origin)).or_default().push(Idle {
            connection,
            by,
            since: Instant::now(),
        });
        state.total += 1;
    }

    /// Closes connections that were idle for too long, and forgets those that the other side
    /// closed.
    pub(crate) fn sweep(&self) {
        let mut state = self.state();
        let State { origins, total, known } = &mut *state;
        *total = 0;
        origins.retain(|origin, idle| {
            for (by, after) in idle.iter().filter_map(|idle| Some((idle.by, idle.ended_after()?))) {
                known.ended(Met { origin, by }, after, Instant::now());
            }
            let time = known.time(origin);
            idle.retain(|idle| idle.is_good() && idle.since.elapsed() < time);
            *total += idle.len();
            !idle.is_empty()
        });
        known.sweep(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{exchange::connections::connection::tests::connection, tests::bench::until};

    const KEPT: Timeouts =
        Timeouts { idle: Duration::from_secs(60), told: Duration::from_secs(60) };

    fn met(origin: &Arc<str>) -> Met<'_> {
        Met { origin, by: OrganizationId::new(outrider_model::Timestamp(0), 1) }
    }

    #[tokio::test]
    async fn idle_connections_are_bounded_for_each_origin_and_in_all() {
        let pool = Pool::new(2, 3, KEPT);
        let (a, b) = (Arc::from("http://a:80"), Arc::from("http://b:80"));
        let mut far = Vec::new();
        for origin in [&a, &a, &a, &b, &b] {
            let (near, other) = connection().await;
            pool.put(met(origin), near, None);
            far.push(other);
        }
        assert_eq!(pool.state().total, 3);
        assert!(pool.take(met(&a)).is_some() && pool.take(met(&a)).is_none());
        assert!(
            pool.take(met(&b)).is_some()
                && pool.take(met(&b)).is_some()
                && pool.take(met(&b)).is_none()
        );
        assert_eq!(pool.state().total, 0);
    }

    #[tokio::test]
    async fn an_origin_with_many_idle_connections_makes_room_for_one_with_few() {
        let pool = Pool::new(4, 4, KEPT);
        let (a, b) = (Arc::from("http://a:80"), Arc::from("http://b:80"));
        let mut far = Vec::new();
        for origin in [&a, &a, &a, &a, &b, &b, &b] {
            let (near, other) = connection().await;
            pool.put(met(origin), near, None);
            far.push(other);
        }
        let count = |origin: &Arc<str>| pool.state().origins.get(origin).map_or(0, Vec::len);
        assert_eq!((count(&a), count(&b), pool.idle()), (2, 2, 4));
    }

    #[tokio::test]
    async fn what_was_closed_or_idle_too_long_is_swept_and_not_handed_out() {
        let pool = Pool::new(2, 3, KEPT);
        let origin = Arc::from("http://a:80");
        let (near, far) = connection().await;
        pool.put(met(&origin), near, None);
        pool.sweep();
        assert_eq!(pool.state().total, 1);
        drop(far);
        until("the end to be seen", || {
            pool.sweep();
            pool.state().origins.is_empty()
        })
        .await;

        let pool = Pool::new(2, 3, Timeouts { idle: Duration::ZERO, ..KEPT });
        let (near, _far) = connection().await;
        pool.put(met(&origin), near, None);
        assert!(pool.take(met(&origin)).is_none());
    }

    #[tokio::test]
    async fn an_origin_that_ends_idle_connections_has_them_kept_for_less() {
        let pool = Pool::new(2, 3, KEPT);
        let origin: Arc<str> = Arc::from("http://a:80");
        let time = || pool.state().known.time(&origin);
        let (near, far) = connection().await;
        pool.put(met(&origin), near, None);
        drop(far);
        until("the end to be seen", || {
            pool.sweep();
            time() == KEPT.idle / 2
        })
        .await;
        pool.met_its_end(met(&origin), Duration::ZERO);
        assert_eq!(time(), KEPT.idle / 2, "the same lesson");
        // The header counts as far as the behavior agrees.
        let (near, _far) = connection().await;
        pool.put(met(&origin), near, Some(Duration::from_secs(8)));
        assert_eq!(time(), Duration::from_secs(6));
        assert!(pool.take(met(&origin)).is_some());
        let (near, _far) = connection().await;
        pool.put(met(&origin), near, Some(Duration::ZERO));
        assert!(pool.take(met(&origin)).is_none());
    }

    #[tokio::test]
    async fn a_connection_whose_socket_has_ended_is_not_handed_out() {
        let pool = Pool::new(2, 3, KEPT);
        let origin: Arc<str> = Arc::from("http://a:80");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        let shown = crate::exchange::connections::Shown::new(outrider_rpc::Socket::from(near));
        // Its task belongs to a stream that does not end, so only the look shows it.
        for quiet in [true, false] {
            let (idle, _other) = connection().await;
            pool.put(met(&origin), idle.with_look(shown.look()), None);
            if !quiet {
                far.set_zero_linger().unwrap();
                break;
            }
            assert!(pool.take(met(&origin)).is_some());
        }
        drop(far);
        until("the reset", || !shown.look().is_quiet()).await;
        assert!(pool.take(met(&origin)).is_none());
    }
}
