//! Shared commits. Whatever waits goes together in the next one, and while that is on its way the next batch forms: a lone item waits
//! for nobody, a crowd shares. A batch that grew to a quarter of the largest goes beside those that are under way.

use std::{future::Future, pin::Pin, sync::Arc};

use outrider_model::{Error, Result};
use outrider_telemetry::essential;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

/// A group of items of one caller: they stay together and are answered together.
struct Group<T, R> {
    items: Vec<T>,
    answer: oneshot::Sender<Result<Vec<R>>>,
}

/// Commits a batch: a result for each item, in order.
pub type Commit<T, R> = Arc<dyn Fn(Vec<T>) -> Pin<Box<dyn Future<Output = Result<Vec<R>>> + Send>> + Send + Sync>;

/// The door to shared commits.
pub struct Batcher<T, R> {
    groups: mpsc::Sender<Group<T, R>>,
}

/// How much goes together.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Commits under way at once.
    pub lanes: usize,
    /// What the items of one commit may weigh; a single heavier group still goes as one.
    pub batch: usize,
    /// Groups that wait.
    pub queue: usize,
}

impl<T: Send + 'static, R: Send + 'static> Batcher<T, R> {
    /// Starts to gather. An item weighs 1 or more.
    pub fn start(shape: Shape, weigh: fn(&T) -> usize, commit: Commit<T, R>) -> Self {
        let (groups, receiver) = mpsc::channel(shape.queue);
        let (forming, under_way) = (Forming::default(), JoinSet::new());
        let gatherer = Gatherer { shape, weigh, commit, groups: receiver, open: true, forming, under_way };
        tokio::spawn(essential("batcher", gatherer.run()));
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

type Callers<R> = Vec<(usize, oneshot::Sender<Result<Vec<R>>>)>;

/// What waits for the next commit.
struct Forming<T, R> {
    items: Vec<T>,
    weight: usize,
    callers: Callers<R>,
}

impl<T, R> Default for Forming<T, R> {
    fn default() -> Self {
        Self { items: Vec::new(), weight: 0, callers: Vec::new() }
    }
}

/// Gathers groups and starts commits.
struct Gatherer<T, R> {
    shape: Shape,
    weigh: fn(&T) -> usize,
    commit: Commit<T, R>,
    groups: mpsc::Receiver<Group<T, R>>,
    /// Whether more groups may come.
    open: bool,
    forming: Forming<T, R>,
    under_way: JoinSet<()>,
}

impl<T: Send + 'static, R: Send + 'static> Gatherer<T, R> {
    async fn run(mut self) {
        while self.open || !self.forming.callers.is_empty() {
            while self.has_room()
                && let Ok(group) = self.groups.try_recv()
            {
                self.add(group);
            }
            if self.is_worth_a_commit() {
                let Forming { items, callers, .. } = std::mem::take(&mut self.forming);
                self.under_way.spawn(carry_out(Arc::clone(&self.commit), items, callers));
            } else {
                self.wait().await;
            }
        }
        while self.under_way.join_next().await.is_some() {}
    }

    fn has_room(&self) -> bool {
        self.forming.weight < self.shape.batch
    }

    fn add(&mut self, Group { items, answer }: Group<T, R>) {
        self.forming.callers.push((items.len(), answer));
        self.forming.weight += items.iter().map(self.weigh).sum::<usize>();
        self.forming.items.extend(items);
    }

    /// A lone item waits for nobody. Beside a commit that is under way only a company starts: small commits side by side would each
    /// cost as much as one for all.
    fn is_worth_a_commit(&self) -> bool {
        match self.under_way.len() {
            0 => !self.forming.callers.is_empty(),
            lanes => lanes < self.shape.lanes && self.forming.weight >= self.shape.batch.div_ceil(4),
        }
    }

    /// Until a group comes or a commit ends.
    async fn wait(&mut self) {
        tokio::select! {
            group = self.groups.recv(), if self.open && self.has_room() => match group {
                Some(group) => self.add(group),
                None => self.open = false,
            },
            Some(_) = self.under_way.join_next() => {}
        }
    }
}

async fn carry_out<T, R>(commit: Commit<T, R>, items: Vec<T>, callers: Callers<R>) {
    match commit(items).await {
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
        let batcher = Batcher::start(Shape { lanes: 1, batch: 1000, queue: 1000 }, |_| 1, commit);
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
    async fn a_company_goes_beside_a_commit_that_is_under_way_and_a_panic_ends_only_its_own() {
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let commit: Commit<u32, u32> = {
            let gate = Arc::clone(&gate);
            Arc::new(move |batch| {
                let gate = Arc::clone(&gate);
                Box::pin(async move {
                    assert!(!batch.contains(&7), "a fault");
                    if batch.contains(&1) {
                        gate.acquire().await.unwrap().forget();
                    }
                    Ok(batch)
                })
            })
        };
        let batcher = Batcher::start(Shape { lanes: 2, batch: 8, queue: 10 }, |_| 1, commit);
        let first = batcher.commit(vec![1]);
        let others = async {
            tokio::task::yield_now().await;
            let company = batcher.commit(vec![2, 3]).await;
            gate.add_permits(1);
            company
        };
        let (first, company) = tokio::join!(first, others);
        assert_eq!((first.unwrap(), company.unwrap()), (vec![1], vec![2, 3]));
        assert_eq!(batcher.commit(vec![7]).await.unwrap_err().reason, outrider_model::Reason::Unavailable);
        assert_eq!(batcher.commit(vec![8]).await.unwrap(), [8]);
    }

    #[tokio::test]
    async fn what_is_heavy_goes_with_few() {
        let largest = Arc::new(AtomicUsize::new(0));
        let commit: Commit<usize, usize> = {
            let largest = Arc::clone(&largest);
            Arc::new(move |batch| {
                largest.fetch_max(batch.iter().sum(), Ordering::SeqCst);
                Box::pin(async { Ok(batch) })
            })
        };
        let batcher = Batcher::start(Shape { lanes: 1, batch: 100, queue: 1000 }, |weight| *weight, commit);
        let answers = join_all((0..200).map(|n| batcher.commit(vec![n % 40 + 1]))).await;
        assert!(answers.into_iter().zip(0..).all(|(answer, n)| answer.unwrap() == [n % 40 + 1]));
        let largest = largest.load(Ordering::SeqCst);
        assert!((100..140).contains(&largest), "{largest}");
    }

    #[tokio::test]
    async fn refuses_when_full_and_reports_a_failed_commit_to_all() {
        let commit: Commit<u32, u32> = Arc::new(|_| Box::pin(async { Err(Error::unavailable("down")) }));
        let batcher = Batcher::start(Shape { lanes: 1, batch: 10, queue: 1 }, |_| 1, commit);
        let answers = join_all((0..5).map(|n| batcher.try_commit(vec![n]))).await;
        assert!(answers.iter().all(Result::is_err));
        assert!(answers.iter().any(|answer| answer.as_ref().unwrap_err().reason == outrider_model::Reason::Overloaded));
    }
}
