//! Connections between requests.
//!
//! hyper-util's pooling client is not used because three promises need what it does not give: the request back when it was
//! never sent, a connection that is certainly new for the second try, and a bound on idle connections in all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper::client::conn::http1::SendRequest;
use tokio::{task::AbortHandle, time::Instant};

use crate::{request::Body, wire::Watch};

/// A connection to an origin, with the task that drives it.
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<Body>,
    /// What its streams found.
    pub(crate) watch: Watch,
    task: AbortHandle,
    /// A request is under way: if this is dropped now, nobody will read the answer.
    busy: bool,
}

impl Connection {
    pub(crate) fn new(sender: SendRequest<Body>, watch: Watch, task: AbortHandle) -> Self {
        Self { sender, watch, task, busy: false }
    }

    /// A request begins.
    pub(crate) fn begin(&mut self) {
        self.busy = true;
        self.watch.begin();
    }

    /// The exchange is over on both sides.
    pub(crate) fn end(&mut self) {
        self.busy = false;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // An idle one is closed in good order by its task, which sees that the sender is gone.
        if self.busy {
            self.task.abort();
        }
    }
}

/// How many origins are looked at for one that has many idle connections: whichever come first.
const LOOKED_AT: usize = 16;

struct Idle {
    connection: Connection,
    since: Instant,
}

#[derive(Default)]
struct State {
    origins: HashMap<Arc<str>, Vec<Idle>>,
    total: usize,
}

impl State {
    /// Closes the oldest idle connection of an origin that has more than `own`; whether it found one.
    fn make_room(&mut self, own: usize) -> bool {
        let some = self.origins.iter().take(LOOKED_AT);
        let Some((origin, most)) = some.max_by_key(|(_, idle)| idle.len()).filter(|(_, idle)| idle.len() > own) else {
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

/// Idle connections, bounded for each origin and in all.
pub(crate) struct Pool {
    state: Mutex<State>,
    per_origin: usize,
    total: usize,
    timeout: Duration,
}

impl Pool {
    pub(crate) fn new(per_origin: usize, total: usize, timeout: Duration) -> Self {
        Self { state: Mutex::default(), per_origin, total, timeout }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection to this origin that was used last, if it still seems good.
    pub(crate) fn take(&self, origin: &str) -> Option<Connection> {
        let mut state = self.state();
        loop {
            let idle = state.origins.get_mut(origin)?.pop()?;
            state.total -= 1;
            if self.good(&idle) {
                return Some(idle.connection);
            }
        }
    }

    /// How many are kept.
    pub(crate) fn idle(&self) -> usize {
        self.state().total
    }

    fn good(&self, idle: &Idle) -> bool {
        let connection = &idle.connection;
        connection.sender.is_ready() && connection.watch.is_intact() && idle.since.elapsed() < self.timeout
    }

    /// Keeps a connection on which nothing is under way, if there is room. Where all room is taken, an
    /// origin that has more makes some. Otherwise a few with many idle connections would keep all
    /// others from having any.
    pub(crate) fn put(&self, origin: &Arc<str>, connection: Connection) {
        let mut state = self.state();
        let own = state.origins.get(origin).map_or(0, Vec::len);
        if own >= self.per_origin || (state.total >= self.total && !state.make_room(own)) {
            return;
        }
        state.origins.entry(Arc::clone(origin)).or_default().push(Idle { connection, since: Instant::now() });
        state.total += 1;
    }

    /// Closes what was idle too long, and forgets what the other side closed.
    pub(crate) fn sweep(&self) {
        let mut state = self.state();
        let mut total = 0;
        state.origins.retain(|_, idle| {
            idle.retain(|idle| self.good(idle));
            total += idle.len();
            !idle.is_empty()
        });
        state.total = total;
    }
}

#[cfg(test)]
mod tests {
    use hyper_util::rt::TokioIo;
    use tokio::io::DuplexStream;

    use super::*;
    use crate::tests::bench::until;

    /// An idle connection, and its other side.
    async fn connection() -> (Connection, DuplexStream) {
        let (near, far) = tokio::io::duplex(1024);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await.unwrap();
        let task = tokio::spawn(async move {
            let _ = connection.await;
        });
        sender.ready().await.unwrap();
        (Connection::new(sender, Watch::default(), task.abort_handle()), far)
    }

    #[tokio::test]
    async fn idle_connections_are_bounded_for_each_origin_and_in_all() {
        let pool = Pool::new(2, 3, Duration::from_secs(60));
        let (a, b) = (Arc::from("http://a:80"), Arc::from("http://b:80"));
        let mut far = Vec::new();
        for origin in [&a, &a, &a, &b, &b] {
            let (near, other) = connection().await;
            pool.put(origin, near);
            far.push(other);
        }
        assert_eq!(pool.state().total, 3);
        assert!(pool.take(&a).is_some() && pool.take(&a).is_none());
        assert!(pool.take(&b).is_some() && pool.take(&b).is_some() && pool.take(&b).is_none());
        assert_eq!(pool.state().total, 0);
    }

    #[tokio::test]
    async fn an_origin_with_many_idle_connections_makes_room_for_one_with_few() {
        let pool = Pool::new(4, 4, Duration::from_secs(60));
        let (a, b) = (Arc::from("http://a:80"), Arc::from("http://b:80"));
        let mut far = Vec::new();
        for origin in [&a, &a, &a, &a, &b, &b, &b] {
            let (near, other) = connection().await;
            pool.put(origin, near);
            far.push(other);
        }
        let count = |origin: &Arc<str>| pool.state().origins.get(origin).map_or(0, Vec::len);
        assert_eq!((count(&a), count(&b), pool.idle()), (2, 2, 4));
    }

    #[tokio::test]
    async fn what_was_closed_or_idle_too_long_is_swept_and_not_handed_out() {
        let pool = Pool::new(2, 3, Duration::from_secs(60));
        let origin = Arc::from("http://a:80");
        let (near, far) = connection().await;
        pool.put(&origin, near);
        pool.sweep();
        assert_eq!(pool.state().total, 1);
        drop(far);
        until("the end to be seen", || {
            pool.sweep();
            pool.state().origins.is_empty()
        })
        .await;

        let pool = Pool::new(2, 3, Duration::ZERO);
        let (near, _far) = connection().await;
        pool.put(&origin, near);
        assert!(pool.take(&origin).is_none());
    }

    #[tokio::test]
    async fn a_connection_that_is_dropped_during_an_exchange_is_closed_at_once() {
        let (mut near, _far) = connection().await;
        near.begin();
        let task = near.task.clone();
        drop(near);
        until("its task to end", || task.is_finished()).await;
    }
}
