//! The writer: takes whatever calls wait, carries them out in one transaction, commits once, then answers them all.

use futures::future::BoxFuture;
use outrider_failpoints::{Point, pass};
use outrider_telemetry::{catalogue::store::ACQUIRE_SECONDS, essential};
use sqlx::{Connection, SqliteConnection, SqlitePool};
use tokio::sync::{mpsc, oneshot};

use super::failed;
use crate::ledger::{LedgerError, LedgerOptions};

/// A handle to the writer task, which ends when the handle is dropped and all calls are answered.
pub(super) struct Writer {
    calls: mpsc::Sender<Box<dyn Call>>,
}

impl Writer {
    pub fn start(pool: SqlitePool, options: LedgerOptions) -> Self {
        let (calls, waiting) = mpsc::channel(options.waiting_calls.max(1));
        tokio::spawn(essential("writer", run(pool, waiting, options.calls_per_commit.max(1))));
        Self { calls }
    }

    /// Carries `work` out in a savepoint of the next transaction; answers when that is committed.
    pub async fn write<T, F>(&self, work: F) -> Result<T, LedgerError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, LedgerError>> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let call = Box::new(Waiting { work: Some(work), outcome: None, answer });
        self.calls.send(call).await.map_err(|_| stopped())?;
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }
}

fn stopped() -> LedgerError {
    LedgerError::Unavailable("the writer has stopped".to_owned())
}

trait Call: Send {
    /// Does the work; whether it is to be kept.
    fn run<'c>(&'c mut self, connection: &'c mut SqliteConnection) -> BoxFuture<'c, bool>;
    /// Answers: with the work's outcome, or with why the transaction failed.
    fn answer(self: Box<Self>, commit: Result<(), String>);
}

struct Waiting<T, F> {
    work: Option<F>,
    outcome: Option<Result<T, LedgerError>>,
    answer: oneshot::Sender<Result<T, LedgerError>>,
}

impl<T, F> Call for Waiting<T, F>
where
    T: Send + 'static,
    F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, LedgerError>> + Send + 'static,
{
    fn run<'c>(&'c mut self, connection: &'c mut SqliteConnection) -> BoxFuture<'c, bool> {
        Box::pin(async move {
            if let Some(work) = self.work.take() {
                self.outcome = Some(work(connection).await);
            }
            matches!(self.outcome, Some(Ok(_)))
        })
    }

    fn answer(self: Box<Self>, commit: Result<(), String>) {
        let outcome = match commit {
            Ok(()) => self.outcome.unwrap_or_else(|| Err(stopped())),
            Err(reason) => Err(LedgerError::Unavailable(reason)),
        };
        // A caller that gave up needs no answer.
        let _ = self.answer.send(outcome);
    }
}

async fn run(pool: SqlitePool, mut waiting: mpsc::Receiver<Box<dyn Call>>, calls_per_commit: usize) {
    let mut calls = Vec::with_capacity(calls_per_commit);
    while waiting.recv_many(&mut calls, calls_per_commit).await > 0 {
        let commit = commit_together(&pool, &mut calls).await.map_err(|error| {
            tracing::warn!(%error, calls = calls.len(), "a transaction of the ledger failed");
            error.to_string()
        });
        for call in calls.drain(..) {
            call.answer(commit.clone());
        }
    }
}

/// The connection is the store's one for writing: configuration, which is written on it too, waits its turn and the other way
/// round.
async fn commit_together(pool: &SqlitePool, calls: &mut [Box<dyn Call>]) -> Result<(), LedgerError> {
    let waited = ACQUIRE_SECONDS.start_timer();
    let mut connection = pool.acquire().await.map_err(failed)?;
    waited.observe_duration();
    let committed = commit_on(&mut connection, calls).await;
    if committed.is_err() {
        // It may have been opened while the disk took no writes, and would take none for ever.
        connection.close_on_drop();
    }
    committed
}

async fn commit_on(connection: &mut SqliteConnection, calls: &mut [Box<dyn Call>]) -> Result<(), LedgerError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    for call in calls {
        let mut savepoint = transaction.begin().await.map_err(failed)?;
        if call.run(&mut savepoint).await {
            savepoint.commit().await.map_err(failed)?;
        } else {
            // When SQLite has given up the whole transaction (disk full, for one), this fails and with it all calls; the pool then closes
            // the connection.
            savepoint.rollback().await.map_err(failed)?;
        }
    }
    pass(Point::BeforeSqliteCommit);
    let committed = transaction.commit().await.map_err(failed);
    pass(Point::AfterSqliteCommit);
    committed
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use outrider_model::principal::Actor;

    use crate::{
        connect::Hot,
        ledger::{LedgerError, tests::World},
    };

    /// The connection for writing gets no more room in the file; another one would.
    async fn fill(world: &World) {
        let Hot::Sqlite { write, .. } = world.store.hot() else { panic!("another database") };
        let mut connection = write.acquire().await.unwrap();
        let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&mut *connection).await.unwrap();
        let limit = format!("PRAGMA max_page_count = {pages}");
        sqlx::query(sqlx::AssertSqlSafe(limit)).execute(&mut *connection).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_disk_that_was_full_takes_commits_again() {
        let world = World::sqlite().await;
        let mut large = world.event_at(world.now);
        large.payload = Bytes::from(vec![0; 1 << 20]);
        for _ in 0..3 {
            fill(&world).await;
            let refused = world.ledger.accept(std::slice::from_ref(&large), world.keys_since()).await;
            assert!(matches!(refused, Err(LedgerError::Unavailable(_))), "{refused:?}");
            world.ledger.accept(&[world.event_at(world.now)], world.keys_since()).await.unwrap();
            // Configuration is written on the same connection.
            world.store.create_organization(Actor::System, "after").await.unwrap();
        }
        assert_eq!(world.rows("events").await, 3);
    }
}
