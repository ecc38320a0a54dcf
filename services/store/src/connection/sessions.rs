//! The ledger's sessions on PostgreSQL. A session is used again only if its work was completed or
//! refused. Otherwise it is closed: it may be in the middle of a transaction, or on a host that no
//! longer exists. Returning a session therefore needs no query to the server. Callers do not wait
//! for each other's sessions to open: each opens its own, within its own time limit.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sqlx::PgConnection;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{options::StoreOptions, patience, session::Connector};

/// Pause between attempts to open a session.
const PAUSE: Duration = Duration::from_millis(200);

/// A cheap handle to the sessions.
#[derive(Clone)]
pub(crate) struct Sessions(Arc<Inner>);

struct Inner {
    connector: Connector,
    options: StoreOptions,
    /// One permit for each session that is not in use.
    places: Semaphore,
    idle: Mutex<Vec<Session>>,
}

struct Session {
    connection: PgConnection,
    opened_at: Instant,
    used_at: Instant,
}

impl Sessions {
    /// Opens no session yet.
    pub fn new(connector: Connector, options: &StoreOptions) -> Self {
        let places = Semaphore::new(options.database.ledger_connections.max(1) as usize);
        Self(Arc::new(Inner {
            connector,
            options: options.clone(),
            places,
            idle: Mutex::default(),
        }))
    }

    /// Opens the sessions.
    pub fn connector(&self) -> &Connector {
        &self.0.connector
    }

    /// The approximate number of sessions, and how many of them are idle.
    pub fn count(&self) -> (u32, usize) {
        let idle = self.0.idle().len();
        let used = (self.0.options.database.ledger_connections.max(1) as usize)
            .saturating_sub(self.0.places.available_permits());
        (u32::try_from(used + idle).unwrap_or(u32::MAX), idle)
    }

    /// A session for some work. Callers are served in order. The error says why none could be
    /// opened.
    pub async fn take(&self) -> Result<Taken<'_>, sqlx::Error> {
        let mut last = None;
        let taken = async {
            let place = self.0.places.acquire().await.map_err(|_| sqlx::Error::PoolClosed)?;
            let session = match self.0.tested().await {
                Some(session) => session,
                None => self.0.opened(&mut last).await,
            };
            Ok(Taken { session, inner: &self.0, _place: place })
        };
        let taken = tokio::time::timeout(self.0.options.database.acquire_timeout, taken).await;
        taken.unwrap_or_else(|_| {
            Err(last.unwrap_or_else(|| timed_out("no session came free in time")))
        })
    }
}

impl Inner {
    fn idle(&self) -> MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An idle session that is alive. If one is not, the other idle sessions are closed too.
    async fn tested(&self) -> Option<Session> {
        loop {
            let mut session = self.idle().pop()?;
            if session.opened_at.elapsed() > patience::LIFETIME {
                continue;
            }
            let is_fresh = session.used_at.elapsed() <= patience::TESTED_AFTER_IDLE;
            if is_fresh
                || patience::test(&mut session.connection, self.options.database.acquire_timeout)
                    .await
                    .is_ok()
            {
                return Some(session);
            }
            self.idle().clear();
        }
    }

    /// A new session, as soon as one can be opened.
    async fn opened(&self, last: &mut Option<sqlx::Error>) -> Session {
        loop {
            match self.open().await {
                Ok(session) => return session,
                Err(error) => *last = Some(error),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn open(&self) -> Result<Session, sqlx::Error> {
        let connection = self.connector.open_for_ledger().await?;
        Ok(Session { connection, opened_at: Instant::now(), used_at: Instant::now() })
    }
}

fn timed_out(why: &'static str) -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, why))
}

/// A session in use. Closed when dropped.
pub(crate) struct Taken<'s> {
    session: Session,
    inner: &'s Inner,
    _place: SemaphorePermit<'s>,
}

impl Taken<'_> {
    /// Does the work within bounds. The session is used again only if the work succeeded, or failed
    /// by what `is_refusal` recognizes as a refusal of the server.
    pub async fn carry_out<T, E: From<sqlx::Error>>(
        mut self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
        is_refusal: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        let bound = patience::of_a_statement(&self.inner.options);
        let done = tokio::time::timeout(bound, work(&mut self.session.connection)).await;
        let done = done.unwrap_or_else(|_| Err(patience::late().into()));
        if done.as_ref().err().is_none_or(is_refusal) {
            self.session.used_at = Instant::now();
            self.inner.idle().push(self.session);
        }
        done
    }
}
