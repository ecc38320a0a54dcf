//! Shared commits. Whatever waits goes together in the next one, and while that is on its way the next batch forms: a lone item waits
//! for nobody, a crowd shares.

use std::{future::Future, pin::Pin, sync::Arc};

use outrider_model::{Error, Result};
use tokio::sync::{Mutex, mpsc, oneshot};

/// A group of items of one caller: they stay together and are answered together.
struct Group<T, R> {
    items: Vec<T>,
    answer: oneshot::Sender<Result<Vec<R>>>,
}

/// Commits a batch: a result for each item, in order.
pub type Commit<T, R> = Arc<dyn Fn(Vec<T>) -> Pin<Box<dyn Future<Output = Result<Vec<R>>> + Send>> + Send + Sync>;

/// The door to the lanes, each of which commits one batch after another.
pub struct Batcher<T, R> {
    groups: mpsc::Sender<Group<T, R>>,
}

/// How many lanes there are and what they hold.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub lanes: usize,
    /// Items in one commit; a single larger group still goes as one.
    pub batch: usize,
    /// Groups that wait.
    pub queue: usize,
}

impl<T: Send + 'static, R: Send + 'static> Batcher<T, R> {
    /// Starts the lanes.
    pub fn start(shape: Shape, commit: Commit<T, R>) -> Self {
        let (groups, receiver) = mpsc::channel(shape.queue);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..shape.lanes.max(1) {
            tokio::spawn(lane(Arc::clone(&receiver), shape.batch, Arc::clone(&commit)));
        }
        Self { groups }
    }

    /// Commits items with whatever else waits. `Overloaded` when too much waits.
    pub async fn try_commit(&self, items: Vec<T>) -> Result<Vec<R>> {
        let (answer, answered) = oneshot::channel();
        self.groups.try_send(Group { items, answer }).map_err(|_| Error::overloaded("too many requests wait for a commit"))?;
        answered.await.unwrap_or_else(|_| Err(Error::unavailable("the commit was given up")))
    }

    /// The same, but waits for room.
    pub async fn commit(&self, items: Vec<T>) -> Result<Vec<R>> {
        let (answer, answered) = oneshot::channel();
        let gone = |_| Error::unavailable("the process is shutting down");
        self.groups.send(Group { items, answer }).await.map_err(gone)?;
        answered.await.unwrap_or_else(|_| Err(Error::unavailable("the commit was given up")))
    }
}

async fn lane<T, R>(groups: Arc<Mutex<mpsc::Receiver<Group<T, R>>>>, limit: usize, commit: Commit<T, R>) {
    loop {
        let Some((batch, callers)) = next_batch(&groups, limit).await else { return };
        match commit(batch).await {
            Ok(results) => {
                let mut results = results.into_iter();
                for (count, answer) in callers {
                    // A caller that went away needs no answer; its items are committed all the same.
                    let _ = answer.send(Ok(results.by_ref().take(count).collect()));
                }
            }
            Err(error) => {
                for (_, answer) in callers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }
}

type Callers<R> = Vec<(usize, oneshot::Sender<Result<Vec<R>>>)>;

/// Waits for a group and takes what else is there, up to the limit.
async fn next_batch<T, R>(groups: &Mutex<mpsc::Receiver<Group<T, R>>>, limit: usize) -> Option<(Vec<T>, Callers<R>)> {
    let mut groups = groups.lock().await;
    let mut next = groups.recv().await;
    let (mut batch, mut callers) = (Vec::new(), Vec::new());
    while let Some(Group { items, answer }) = next {
        callers.push((items.len(), answer));
        batch.extend(items);
        next = if batch.len() < limit { groups.try_recv().ok() } else { None };
    }
    (!callers.is_empty()).then_some((batch, callers))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn what_waits_while_a_commit_is_on_its_way_shares_the_next_and_answers_find_their_callers() {
        let (commits, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Semaphore::new(0)));
        let commit: Commit<u32, u32> = {
            let (commits, gate) = (Arc::clone(&commits), Arc::clone(&gate));
            Arc::new(move |batch| {
                let (commits, gate) = (Arc::clone(&commits), Arc::clone(&gate));
                Box::pin(async move {
                    commits.fetch_add(1, Ordering::SeqCst);
                    gate.acquire().await.unwrap().forget();
                    Ok(batch.into_iter().map(|item| item * 10).collect())
                })
            })
        };
        let batcher = Batcher::start(Shape { lanes: 1, batch: 1000, queue: 1000 }, commit);
        let first = batcher.commit(vec![0, 1]);
        let others = async {
            // The others come while the first is on its way.
            while commits.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
            let open = async { gate.add_permits(2) };
            tokio::join!(join_all((1..100).map(|n| batcher.commit(vec![n, n + 1]))), open).0
        };
        let (first, others) = tokio::join!(first, others);
        let answers = std::iter::once(first).chain(others);
        for (n, answer) in (0..).zip(answers) {
            assert_eq!(answer.unwrap(), [n * 10, (n + 1) * 10]);
        }
        assert_eq!(commits.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn refuses_when_full_and_reports_a_failed_commit_to_all() {
        let commit: Commit<u32, u32> = Arc::new(|_| Box::pin(async { Err(Error::unavailable("down")) }));
        let batcher = Batcher::start(Shape { lanes: 1, batch: 10, queue: 1 }, commit);
        let answers = join_all((0..5).map(|n| batcher.try_commit(vec![n]))).await;
        assert!(answers.iter().all(Result::is_err));
        assert!(answers.iter().any(|answer| answer.as_ref().unwrap_err().reason == outrider_model::Reason::Overloaded));
    }
}
