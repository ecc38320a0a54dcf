//! Bounds for a database that does not answer. After a failover, PostgreSQL's old host may be gone
//! without closing its connections, and TCP would wait a quarter of an hour for it. Work that no
//! request bounds is given up here, and its connection is closed.

use std::{future::Future, time::Duration};

use outrider_model::{Error, Result};
use outrider_telemetry::catalog::store::ERRORS;
use sqlx::{PgConnection, Row as _};

use super::{backend::Backend, options::StoreOptions};

/// Maximum lifetime of a session, because of what a server keeps for it.
pub(crate) const LIFETIME: Duration = Duration::from_secs(30 * 60);
/// A connection that was idle for longer is tested before it is used, so that callers see no errors
/// when the database restarts.
pub(crate) const TESTED_AFTER_IDLE: Duration = Duration::from_secs(1);
/// How long the server may take to report that a statement ran into its timeout.
const GRACE: Duration = Duration::from_secs(1);
/// How long a connection may take to show that it is alive.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// How long work may take: the maximum for a connection plus the maximum for a statement. SQLite,
/// which is on no other host, may take as long as it needs.
pub(crate) fn of(backend: Backend, options: &StoreOptions) -> Duration {
    if backend == Backend::Sqlite {
        return Duration::MAX;
    }
    options.database.acquire_timeout.saturating_add(of_a_statement(options))
}

/// How long a statement may take until it is answered, at the latest by its timeout.
pub(crate) fn of_a_statement(options: &StoreOptions) -> Duration {
    options.database.statement_timeout.saturating_add(GRACE)
}

/// Bounds some work. Answers `UNAVAILABLE` if it does not end in time: whether it was done is then
/// unknown.
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

/// The error of work that was given up.
pub(crate) fn late() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        "the database does not answer at all",
    ))
}

/// Tests whether a connection is alive. Takes only a part of `acquire_timeout`, so that the rest is
/// enough to test or open another.
pub(crate) async fn test(
    connection: &mut PgConnection,
    acquire_timeout: Duration,
) -> sqlx::Result<()> {
    use sqlx::Connection as _;
    let bound = SIGN_OF_LIFE.min(acquire_timeout / 3);
    tokio::time::timeout(bound, connection.ping()).await.map_err(|_| late())?
}

/// Whether a connection that is returned to the driver's pool is alive and outside a transaction.
/// Work that was given up may leave it with an answer still to come, or halfway through.
///
/// The pool would close a bad or old connection, and wait without end for a lost host to confirm
/// that. So this ends the pool's task instead, which closes the connection and frees its place
/// (sqlx 0.9, `PoolConnection::return_to_pool`).
pub(crate) async fn test_returned(
    connection: &mut PgConnection,
    age: Duration,
    writes: bool,
) -> sqlx::Result<bool> {
    // For a statement sent as one message. One sent as several, as those with parameters are,
    // begins later than its transaction. A session that began while the server, database or role
    // accepted no writes may never accept any.
    const SOUND: &str =
        "SELECT now() = statement_timestamp(), current_setting('transaction_read_only') = 'off'";
    if age <= LIFETIME
        && let Ok(Ok(row)) =
            tokio::time::timeout(SIGN_OF_LIFE, sqlx::raw_sql(SOUND).fetch_one(connection)).await
    {
        return Ok(row.try_get(0)? && (row.try_get(1)? || !writes));
    }
    std::panic::resume_unwind(Box::new("a connection that must not be used again is dropped"))
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
