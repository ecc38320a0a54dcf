//! The writer: carries the waiting calls out in one transaction, commits once, and then answers
//! them all. A transaction contains at most one large call, so a small call waits for at most two
//! large ones, however many there are.

use std::collections::VecDeque;

use futures::future::BoxFuture;
use outrider_failpoints::{Point, pass};
use outrider_telemetry::{catalog::store::ACQUIRE_SECONDS, essential};
use sqlx::{Connection, SqliteConnection, SqlitePool};
use tokio::sync::{mpsc, oneshot};

use super::errors::failed;
use crate::ledger::{LedgerError, LedgerOptions};

/// A call that writes more rows than this is large: it takes about 15 ms or more.
pub(super) const LARGE_ROWS: usize = 256;

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

    /// Carries out `work`, which writes about this many rows, in a savepoint of a transaction.
    /// Returns when that is committed.
    pub async fn write<T, F>(&self, rows: usize, work: F) -> Result<T, LedgerError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, LedgerError>>
            + Send
            + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let call = Box::new(Waiting { rows, work: Some(work), outcome: None, answer });
        self.calls.send(call).await.map_err(|_| stopped())?;
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }
}

fn stopped() -> LedgerError {
    LedgerError::Unavailable("the writer has stopped".to_owned())
}

trait Call: Send {
    fn is_large(&self) -> bool;
    /// Does the work. Returns whether to keep its changes.
    fn run<'c>(&'c mut self, connection: &'c mut SqliteConnection) -> BoxFuture<'c, bool>;
    /// Answers with the outcome of the work, or with the reason why the transaction failed.
    fn answer(self: Box<Self>, commit: Result<(), String>);
}

struct Waiting<T, F> {
    rows: usize,
    work: Option<F>,
    outcome: Option<Result<T, LedgerError>>,
    answer: oneshot::Sender<Result<T, LedgerError>>,
}

impl<T, F> Call for Waiting<T, F>
where
    T: Send + 'static,
    F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, LedgerError>>
        + Send
        + 'static,
{
    fn is_large(&self) -> bool {
        self.rows > LARGE_ROWS
    }

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
        // The send fails if the caller gave up, and then needs no answer.
        let _ = self.answer.send(outcome);
    }
}

async fn run(pool: SqlitePool, waiting: mpsc::Receiver<Box<dyn Call>>, calls_per_commit: usize) {
    let mut calls = Calls { waiting, large: VecDeque::new(), most: calls_per_commit };
    loop {
        let mut together = calls.next().await;
        if together.is_empty() {
            return;
        }
        let commit = commit_together(&pool, &mut together).await.map_err(|error| {
            tracing::warn!(%error, calls = together.len(), "a transaction of the ledger failed");
            error.to_string()
        });
        for call in together {
            call.answer(commit.clone());
        }
    }
}

/// The waiting calls.
struct Calls {
    waiting: mpsc::Receiver<Box<dyn Call>>,
    /// Large calls that other calls have passed.
    large: VecDeque<Box<dyn Call>>,
    /// Maximum number of calls in a transaction, and of calls held here.
    most: usize,
}

impl Calls {
    /// The calls of the next transaction: the waiting small ones, and the large one that has waited
    /// longest. None if no more will come.
    async fn next(&mut self) -> Vec<Box<dyn Call>> {
        let mut calls = Vec::new();
        if self.large.is_empty() {
            self.waiting.recv_many(&mut calls, self.most).await;
        } else {
            while self.large.len() + calls.len() < self.most
                && let Ok(call) = self.waiting.try_recv()
            {
                calls.push(call);
            }
        }
        self.large.extend(calls.extract_if(.., |call| call.is_large()));
        calls.extend(self.large.pop_front());
        calls
    }
}

/// Uses the store's one connection for writes. Configuration is written on it too, so each waits
/// for the other.
async fn commit_together(
    pool: &SqlitePool,
    calls: &mut [Box<dyn Call>],
) -> Result<(), LedgerError> {
    let waited = ACQUIRE_SECONDS.start_timer();
    let mut connection = pool.acquire().await.map_err(failed)?;
    waited.observe_duration();
    let committed = commit_on(&mut connection, calls).await;
    if committed.is_err() {
        // It may have been opened while the disk accepted no writes, and would never accept any.
        connection.close_on_drop();
    }
    committed
}

async fn commit_on(
    connection: &mut SqliteConnection,
    calls: &mut [Box<dyn Call>],
) -> Result<(), LedgerError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    for call in calls {
        let mut savepoint = transaction.begin().await.map_err(failed)?;
        if call.run(&mut savepoint).await {
            savepoint.commit().await.map_err(failed)?;
        } else {
            // If SQLite has given up the whole transaction, for example because the disk is full,
            // this fails, and so do all calls. The pool then closes the connection.
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
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;
    use outrider_model::principal::Actor;
    use tokio::sync::Semaphore;

    use super::{LARGE_ROWS, Writer};
    use crate::{
        connection::store::LedgerPool,
        ledger::{LedgerError, LedgerOptions},
        testing::world::World,
    };

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_small_call_passes_large_ones_and_those_go_one_by_one() {
        let world = World::sqlite().await;
        let LedgerPool::Sqlite { write: pool, .. } = world.store.ledger_pool() else {
            panic!("another database")
        };
        let writer = Writer::start(pool.clone(), LedgerOptions::default());
        let carried_out = Arc::new(Mutex::new(Vec::new()));
        let write = |rows: usize, name: &'static str, after: Option<Arc<Semaphore>>| {
            let carried_out = Arc::clone(&carried_out);
            writer.write(rows, move |_| {
                Box::pin(async move {
                    if let Some(answers) = after {
                        answers.acquire_many(3).await.unwrap().forget();
                    }
                    carried_out.lock().unwrap().push(name);
                    Ok(())
                })
            })
        };
        let answers = Arc::new(Semaphore::new(0));
        let answered = async |call: Result<(), LedgerError>| {
            call.unwrap();
            answers.add_permits(1);
        };
        let connection = pool.acquire().await.unwrap();
        // They wait in this order until there is a connection, the first perhaps in its own
        // transaction. The third large one does not end before the others are answered.
        tokio::join!(
            async { answered(write(LARGE_ROWS + 1, "first large", None).await).await },
            async { answered(write(LARGE_ROWS + 1, "second large", None).await).await },
            async {
                write(LARGE_ROWS + 1, "third large", Some(Arc::clone(&answers))).await.unwrap()
            },
            async { answered(write(LARGE_ROWS, "small", None).await).await },
            async { drop(connection) },
        );
        assert_eq!(carried_out.lock().unwrap().last(), Some(&"third large"));
    }

    /// Gives the connection for writes no more room in the file. Another one would get it.
    async fn fill(world: &World) {
        let LedgerPool::Sqlite { write, .. } = world.store.ledger_pool() else {
            panic!("another database")
        };
        let mut connection = write.acquire().await.unwrap();
        let pages: i64 =
            sqlx::query_scalar("PRAGMA page_count").fetch_one(&mut *connection).await.unwrap();
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
            let refused =
                world.ledger.accept(std::slice::from_ref(&large), world.keys_since()).await;
            assert!(matches!(refused, Err(LedgerError::Unavailable(_))), "{refused:?}");
            world.ledger.accept(&[world.event_at(world.now)], world.keys_since()).await.unwrap();
            // Configuration is written on the same connection.
            world.store.create_organization(Actor::System, "after").await.unwrap();
        }
        assert_eq!(world.rows("events").await, 3);
    }
}
