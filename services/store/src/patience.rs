//! A database that does not answer at all. The host of a PostgreSQL that failed over may be gone
//! without a word, and TCP would wait a quarter of an hour for it: work that nobody's request ends
//! is ended here, and the connection it used is closed.

use std::{future::Future, time::Duration};

use outrider_model::{Error, Result};
use outrider_telemetry::catalogue::store::ERRORS;
use sqlx::{PgConnection, Row as _};

use crate::{Backend, Store, StoreOptions, sessions::LIFETIME};

/// What a statement that ran into its timeout may take to be told of.
const GRACE: Duration = Duration::from_secs(1);
/// How long a connection may take to show that it is alive, at most.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// How much longer the steps of a sweep or an audit may take, each of which is several statements.
const STEP: u32 = 4;

/// How long work may take: a connection and a statement, each at its longest. SQLite, which is no
/// other host, takes the time it takes.
pub(crate) fn of(backend: Backend, options: &StoreOptions) -> Duration {
    if backend == Backend::Sqlite {
        return Duration::MAX;
    }
    options.database.acquire_timeout.saturating_add(of_a_statement(options))
}

/// How long a statement may take to be answered, if only by its timeout.
pub(crate) fn of_a_statement(options: &StoreOptions) -> Duration {
    options.database.statement_timeout.saturating_add(GRACE)
}

/// The work, if it ends in time. Otherwise `UNAVAILABLE`: whether it was done is unknown.
pub(crate) async fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::time::timeout(patience, work).await.unwrap_or_else(|_| {
        ERRORS.with_label_values(&["unavailable"]).inc();
        tracing::warn!(seconds = patience.as_secs_f64(), "the database does not answer at all");
        Err(Error::unavailable("the database does not answer"))
    })
}

/// What is told of work that was given up.
pub(crate) fn late() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        "the database does not answer at all",
    ))
}

/// Whether a connection is alive: it says so soon enough for others to be asked or made within
/// `acquire_timeout`.
pub(crate) async fn test(
    connection: &mut PgConnection,
    acquire_timeout: Duration,
) -> sqlx::Result<()> {
    use sqlx::Connection as _;
    let bound = SIGN_OF_LIFE.min(acquire_timeout / 3);
    tokio::time::timeout(bound, connection.ping()).await.map_err(|_| late())?
}

/// Whether a connection that is given back to the driver's pool is alive and in no transaction:
/// work that was given up may leave it with an answer to come, or half begun. The pool would close
/// one that is not, and one that is too old, and wait without end for a lost host to hear of it; so
/// its task ends here, which closes the connection and frees its place (sqlx 0.9,
/// `PoolConnection::return_to_pool`).
pub(crate) async fn test_returned(
    connection: &mut PgConnection,
    age: Duration,
    writes: bool,
) -> sqlx::Result<bool> {
    // Of a statement in one message; one in several, as those with parameters are, begins later
    // than its transaction. A session that began while the server, database or role took no writes
    // may take none for ever.
    const SOUND: &str =
        "SELECT now() = statement_timestamp(), current_setting('transaction_read_only') = 'off'";
    if age <= LIFETIME
        && let Ok(Ok(row)) =
            tokio::time::timeout(SIGN_OF_LIFE, sqlx::raw_sql(SOUND).fetch_one(connection)).await
    {
        return Ok(row.try_get(0)? && (row.try_get(1)? || !writes));
    }
    std::panic::resume_unwind(Box::new("a connection that is not to be used again is dropped"))
}

impl Store {
    /// A look that no request waits for, in bounds.
    pub(crate) async fn within<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        within(self.patience(), work).await
    }

    /// A step of several statements that no request waits for, in bounds.
    pub(crate) async fn step_within<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        within(self.patience().saturating_mul(STEP), work).await
    }
}

#[cfg(test)]
mod tests {
    use outrider_model::Reason;

    use super::*;

    #[tokio::test]
    async fn what_is_not_answered_ends() {
        let patience = Duration::from_millis(20);
        assert_eq!(within(patience, async { Ok(1) }).await.unwrap(), 1);
        assert_eq!(
            within::<()>(patience, std::future::pending()).await.unwrap_err().reason,
            Reason::Unavailable
        );
    }
}
