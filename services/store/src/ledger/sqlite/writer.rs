//! The writer: takes whatever calls wait, carries them out in one transaction, commits once, then answers them all.

use futures::future::BoxFuture;
use outrider_failpoints::{Point, pass};
use outrider_telemetry::catalogue::store::ACQUIRE_SECONDS;
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
        tokio::spawn(run(pool, waiting, options.calls_per_commit.max(1)));
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
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    for call in calls {
        let mut savepoint = transaction.begin().await.map_err(failed)?;
        if call.run(&mut savepoint).await {
            savepoint.commit().await.map_err(failed)?;
        } else {
            // When SQLite has given up the whole transaction (disk full, for one), this fails and with it all calls.
            savepoint.rollback().await.map_err(failed)?;
        }
    }
    pass(Point::BeforeSqliteCommit);
    let committed = transaction.commit().await.map_err(failed);
    pass(Point::AfterSqliteCommit);
    committed
}
