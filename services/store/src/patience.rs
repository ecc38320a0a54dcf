//! A database that does not answer at all. The host of a PostgreSQL that failed over may be gone without a word, and TCP would wait a quarter
//! of an hour for it: work that nobody's request ends is ended here, and the connection it used is closed.

use std::{future::Future, time::Duration};

use outrider_model::{Error, Result};
use outrider_telemetry::catalogue::store::ERRORS;
use sqlx::PgConnection;

use crate::{Backend, Store, StoreOptions};

/// What a statement that ran into its timeout may take to be told of.
const GRACE: Duration = Duration::from_secs(1);
/// How long a connection may take to show that it is alive.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);

/// How long work may take: a connection and a statement, each at its longest. SQLite, which is no other host, takes the time it takes.
pub(crate) fn of(backend: Backend, options: &StoreOptions) -> Duration {
    if backend == Backend::Sqlite {
        return Duration::MAX;
    }
    options.acquire_timeout.saturating_add(options.statement_timeout).saturating_add(GRACE)
}

/// The work, if it ends in time. Otherwise `UNAVAILABLE`: whether it was done is unknown.
pub(crate) async fn within<T>(patience: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(patience, work).await.unwrap_or_else(|_| {
        ERRORS.with_label_values(&["unavailable"]).inc();
        tracing::warn!(seconds = patience.as_secs_f64(), "the database does not answer at all");
        Err(Error::unavailable("the database does not answer"))
    })
}

/// Whether a connection is alive. An error closes it, whatever its work was.
pub(crate) async fn test(connection: &mut PgConnection) -> sqlx::Result<()> {
    use sqlx::Connection as _;
    let late = |_| sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "the database does not answer"));
    tokio::time::timeout(SIGN_OF_LIFE, connection.ping()).await.map_err(late)?
}

impl Store {
    /// A step of work that no request waits for, in bounds.
    pub(crate) async fn within<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        within(self.patience(), work).await
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
        assert_eq!(within::<()>(patience, std::future::pending()).await.unwrap_err().reason, Reason::Unavailable);
    }
}
