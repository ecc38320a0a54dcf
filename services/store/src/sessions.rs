//! The ledger's sessions on PostgreSQL. A session whose work was not seen to its end is closed and
//! never used again: it may be in the middle of a transaction, or on a host that is gone without a
//! word. That needs no question to the server when it is given back, and none waits for another's:
//! whoever needs a session opens it, in its own time.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sqlx::PgConnection;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{StoreOptions, connect, patience, session::Reach};

/// As long as a session lives at most, for what a server keeps of it.
pub(crate) const LIFETIME: Duration = Duration::from_secs(30 * 60);
/// Between tries to open one.
const PAUSE: Duration = Duration::from_millis(200);

/// A cheap handle to the sessions.
#[derive(Clone)]
pub(crate) struct Sessions(Arc<Inner>);

struct Inner {
    reach: Reach,
    options: StoreOptions,
    /// One for each session that there may be and that nobody uses.
    places: Semaphore,
    idle: Mutex<Vec<Session>>,
}

struct Session {
    connection: PgConnection,
    opened_at: Instant,
    used_at: Instant,
}

impl Sessions {
    /// Opens none yet.
    pub fn new(reach: Reach, options: &StoreOptions) -> Self {
        let places = Semaphore::new(options.database.ledger_connections.max(1) as usize);
        Self(Arc::new(Inner { reach, options: options.clone(), places, idle: Mutex::default() }))
    }

    /// How they are opened.
    pub fn reach(&self) -> &Reach {
        &self.0.reach
    }

    /// How many there are, about, and how many of them nobody uses.
    pub fn count(&self) -> (u32, usize) {
        let idle = self.0.idle().len();
        let used = (self.0.options.database.ledger_connections.max(1) as usize)
            .saturating_sub(self.0.places.available_permits());
        (u32::try_from(used + idle).unwrap_or(u32::MAX), idle)
    }

    /// One for some work; those who ask have their turns. The error says why none could be opened.
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

    /// One that nobody uses and that is alive. Where one is not, the others are not trusted either.
    async fn tested(&self) -> Option<Session> {
        loop {
            let mut session = self.idle().pop()?;
            if session.opened_at.elapsed() > LIFETIME {
                continue;
            }
            let is_fresh = session.used_at.elapsed() <= connect::TESTED_AFTER_IDLE;
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

    /// A new one, as soon as there can be one.
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
        let connection = self.reach.ledger().await?;
        Ok(Session { connection, opened_at: Instant::now(), used_at: Instant::now() })
    }
}

fn timed_out(why: &'static str) -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, why))
}

/// A session at work; closed when dropped.
pub(crate) struct Taken<'s> {
    session: Session,
    inner: &'s Inner,
    _place: SemaphorePermit<'s>,
}

impl Taken<'_> {
    /// Does the work, in bounds. Only what was carried out, or refused by the server as
    /// `is_refusal` says, leaves a session that is used again.
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
