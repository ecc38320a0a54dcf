//! The ledger's sessions on PostgreSQL. A session whose work was not seen to its end is closed and never used again: it may be in the middle of
//! a transaction, or on a host that is gone without a word. That needs no question to the server when it is given back.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bb8::{ManageConnection, Pool, PooledConnection, RunError};
use sqlx::{ConnectOptions as _, PgConnection, postgres::PgConnectOptions};

use crate::{
    StoreOptions,
    connect::{TESTED_AFTER_IDLE, set_up_ledger, set_up_session},
    patience,
};

/// As long as a session lives at most, for what a server keeps of it.
const LIFETIME: Duration = Duration::from_secs(30 * 60);

/// A cheap handle to the sessions.
#[derive(Clone)]
pub(crate) struct Sessions {
    pool: Pool<Manager>,
    last_error: Arc<Mutex<Option<String>>>,
    patience: Duration,
}

impl Sessions {
    /// Opens none yet.
    pub fn new(connect: PgConnectOptions, options: &StoreOptions, patience: Duration) -> Self {
        let last_error = Arc::<Mutex<Option<String>>>::default();
        let manager = Manager {
            connect,
            statement_timeout: options.statement_timeout,
            bound: options.acquire_timeout,
            last_error: Arc::clone(&last_error),
        };
        let pool = Pool::builder()
            .max_size(options.ledger_connections.max(1))
            .connection_timeout(options.acquire_timeout)
            .max_lifetime(Some(LIFETIME))
            .build_unchecked(manager);
        Self { pool, last_error, patience }
    }

    /// How many there are, and how many of them nobody uses.
    pub fn count(&self) -> (u32, usize) {
        let state = self.pool.state();
        (state.connections, state.idle_connections as usize)
    }

    /// One for some work.
    pub async fn take(&self) -> Result<Taken<'_>, sqlx::Error> {
        let session = self.pool.get().await.map_err(|error| match error {
            RunError::User(error) => error,
            RunError::TimedOut => {
                let last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
                let why = last.as_deref().unwrap_or("all are in use").to_owned();
                sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no session came free in time: {why}")))
            }
        })?;
        Ok(Taken { session, patience: self.patience })
    }
}

/// A session at work.
pub(crate) struct Taken<'s> {
    session: PooledConnection<'s, Manager>,
    patience: Duration,
}

impl Taken<'_> {
    /// Does the work, in bounds. Only what was carried out, or refused by the server as `is_refusal` says, leaves a session that is used again.
    pub async fn carry_out<T, E: From<sqlx::Error>>(
        mut self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
        is_refusal: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        self.session.at_work = true;
        let late = |_| Err(E::from(patience::late()));
        let done = tokio::time::timeout(self.patience, work(&mut self.session.connection)).await.unwrap_or_else(late);
        self.session.at_work = done.as_ref().is_err_and(|error| !is_refusal(error));
        self.session.used_at = Instant::now();
        done
    }
}

pub(crate) struct Session {
    connection: PgConnection,
    /// Something was begun and not seen to its end.
    at_work: bool,
    used_at: Instant,
}

pub(crate) struct Manager {
    connect: PgConnectOptions,
    statement_timeout: Duration,
    /// How long opening one may take.
    bound: Duration,
    last_error: Arc<Mutex<Option<String>>>,
}

impl Manager {
    async fn open(&self) -> Result<Session, sqlx::Error> {
        let mut connection = self.connect.connect().await?;
        set_up_session(&mut connection, self.statement_timeout).await?;
        set_up_ledger(&mut connection).await?;
        Ok(Session { connection, at_work: false, used_at: Instant::now() })
    }
}

impl ManageConnection for Manager {
    type Connection = Session;
    type Error = sqlx::Error;

    async fn connect(&self) -> Result<Session, sqlx::Error> {
        let opened = tokio::time::timeout(self.bound, self.open()).await.unwrap_or_else(|_| Err(patience::late()));
        let error = opened.as_ref().err().map(ToString::to_string);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
        opened
    }

    async fn is_valid(&self, session: &mut Session) -> Result<(), sqlx::Error> {
        if session.used_at.elapsed() > TESTED_AFTER_IDLE { patience::test(&mut session.connection).await } else { Ok(()) }
    }

    fn has_broken(&self, session: &mut Session) -> bool {
        session.at_work
    }
}
