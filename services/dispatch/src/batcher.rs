//! Shared commits. All waiting items go into the next commit, and while it runs, the next batch
//! forms. A single item therefore waits for nobody, and many items share. A batch that has reached
//! a quarter of the largest size starts beside the commits in flight.
//!
//! Waiting items take turns ([`crate::fair_queue`]), so callers with many items do not hold up
//! those with few. Beside large batches, a lane is reserved for organizations that have nothing in
//! flight.

use std::{collections::HashMap, future::Future, pin::Pin, sync::Arc};

use outrider_model::{Error, OrganizationId, Result};
use outrider_telemetry::essential;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::{self, JoinSet},
};

use crate::fair_queue::{FairQueue, Owner};

/// How many organizations are examined to find a newcomer. A newcomer has one of the first turns,
/// unless many arrive at once.
const LOOKED_AT: usize = 16;

/// A group of items of one caller. They stay together and are answered together.
struct Group<T, R> {
    owner: Owner,
    items: Vec<T>,
    answer: oneshot::Sender<Result<Vec<R>>>,
    /// Released when the group goes into a commit.
    _place: OwnedSemaphorePermit,
}

/// Commits a batch, and returns a result for each item, in order.
pub type Commit<T, R> =
    Arc<dyn Fn(Vec<T>) -> Pin<Box<dyn Future<Output = Result<Vec<R>>> + Send>> + Send + Sync>;

/// Adds items to shared commits.
pub struct Batcher<T, R> {
    groups: mpsc::UnboundedSender<Group<T, R>>,
    /// One permit for each group that may wait.
    places: Arc<Semaphore>,
}

/// The limits of batches.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// The most commits in flight at once.
    pub lanes: usize,
    /// How many lanes are reserved for organizations that have nothing in flight.
    pub reserved: usize,
    /// The most that the items of one commit may weigh. A single heavier group is committed alone.
    pub batch: usize,
    /// The most groups that may wait.
    pub queue: usize,
}

impl<T: Send + 'static, R: Send + 'static> Batcher<T, R> {
    /// Starts the task that gathers items. An item weighs 1 or more.
    pub fn start(limits: BatchLimits, weigh: fn(&T) -> usize, commit: Commit<T, R>) -> Self {
        // The places bound this channel.
        let (groups, receiver) = mpsc::unbounded_channel();
        let gatherer = Gatherer {
            limits,
            weigh,
            commit,
            groups: receiver,
            open: true,
            line: FairQueue::new(),
            commits: JoinSet::new(),
            under_way: HashMap::new(),
        };
        tokio::spawn(essential("batcher", gatherer.run()));
        Self { groups, places: Arc::new(Semaphore::new(limits.queue)) }
    }

    /// Commits items together with other waiting items. Fails with `Overloaded` if too many wait.
    pub async fn try_commit(&self, owner: Owner, items: Vec<T>) -> Result<Vec<R>> {
        let full = |_| Error::overloaded("too many requests wait for a commit");
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(full)?;
        self.go(owner, items, place).await
    }

    /// Commits items like `try_commit`, but waits for a place.
    pub async fn commit(&self, owner: Owner, items: Vec<T>) -> Result<Vec<R>> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(gone)?;
        self.go(owner, items, place).await
    }

    async fn go(&self, owner: Owner, items: Vec<T>, place: OwnedSemaphorePermit) -> Result<Vec<R>> {
        let (answer, answered) = oneshot::channel();
        self.groups.send(Group { owner, items, answer, _place: place }).map_err(gone)?;
        answered.await.unwrap_or_else(|_| Err(Error::unavailable("the commit was given up")))
    }
}

fn gone<E>(_: E) -> Error {
    Error::unavailable("the process is shutting down")
}

type Callers<R> = Vec<(usize, oneshot::Sender<Result<Vec<R>>>)>;

/// A commit that is being formed.
struct Forming<T, R> {
    items: Vec<T>,
    callers: Callers<R>,
    /// The organizations of its items, with repetitions.
    organizations: Vec<OrganizationId>,
    weight: usize,
}

impl<T, R> Forming<T, R> {
    /// Whether the commit takes longer than others should wait: it weighs a quarter of the largest
    /// batch, or its payloads and deliveries weigh a quarter of that, in addition to the 1 of each
    /// item.
    fn is_large(&self, quarter: usize) -> bool {
        self.weight >= quarter
            || self.weight.saturating_sub(self.items.len()) >= quarter.div_ceil(4)
    }
}

/// A commit in flight.
struct UnderWay {
    organizations: Vec<OrganizationId>,
    is_large: bool,
}

/// Gathers groups and starts commits.
struct Gatherer<T, R> {
    limits: BatchLimits,
    weigh: fn(&T) -> usize,
    commit: Commit<T, R>,
    groups: mpsc::UnboundedReceiver<Group<T, R>>,
    /// Whether more groups may arrive.
    open: bool,
    line: FairQueue<Group<T, R>>,
    commits: JoinSet<()>,
    under_way: HashMap<task::Id, UnderWay>,
}

impl<T: Send + 'static, R: Send + 'static> Gatherer<T, R> {
    async fn run(mut self) {
        while self.open || !self.line.is_empty() {
            while let Ok(group) = self.groups.try_recv() {
                self.line_up(group);
            }
            match self.form() {
                Some(forming) => self.start(forming),
                None => self.wait().await,
            }
        }
        while self.commits.join_next().await.is_some() {}
    }

    fn line_up(&mut self, group: Group<T, R>) {
        let weight = group.items.iter().map(self.weigh).sum();
        self.line.push(group.owner, weight, group);
    }

    /// Returns the next commit, if it is time for one. A single item waits for nobody. Another
    /// commit starts beside one in flight only when a quarter of the largest batch waits, because
    /// several small commits would each cost as much as one for all. A newcomer, however, does not
    /// wait for large commits of others.
    fn form(&mut self) -> Option<Forming<T, R>> {
        let lanes = self.commits.len();
        if self.line.is_empty() || lanes >= self.limits.lanes {
            return None;
        }
        let quarter = self.quarter();
        let is_enough = self.line.weight() >= quarter as u64
            && lanes + self.limits.reserved < self.limits.lanes;
        if lanes == 0 || is_enough {
            return Some(self.gather(self.limits.batch, |line| line.pop()));
        }
        if self.under_way.values().any(|commit| !commit.is_large) {
            return None;
        }
        let newcomer = self.newcomer()?;
        Some(self.gather(quarter, |line| Some((newcomer, line.pop_of(newcomer)?))))
    }

    /// Returns a quarter of the largest batch: the weight at which a commit starts beside another.
    fn quarter(&self) -> usize {
        self.limits.batch.div_ceil(4)
    }

    /// Returns the first organization in turn that has nothing in flight.
    fn newcomer(&self) -> Option<OrganizationId> {
        let is_new = |organization: &OrganizationId| {
            !self.under_way.values().any(|commit| commit.organizations.contains(organization))
        };
        self.line.next_organizations().take(LOOKED_AT).find(is_new)
    }

    /// Takes groups until they weigh enough.
    fn gather(
        &mut self,
        enough: usize,
        next: impl Fn(&mut FairQueue<Group<T, R>>) -> Option<(OrganizationId, Group<T, R>)>,
    ) -> Forming<T, R> {
        let mut forming = Forming {
            items: Vec::new(),
            callers: Vec::new(),
            organizations: Vec::new(),
            weight: 0,
        };
        while forming.weight < enough
            && let Some((organization, Group { items, answer, .. })) = next(&mut self.line)
        {
            if forming.organizations.last() != Some(&organization) {
                forming.organizations.push(organization);
            }
            forming.callers.push((items.len(), answer));
            forming.weight += items.iter().map(self.weigh).sum::<usize>();
            forming.items.extend(items);
        }
        forming
    }

    fn start(&mut self, forming: Forming<T, R>) {
        let is_large = forming.is_large(self.quarter());
        let Forming { items, callers, organizations, .. } = forming;
        let commit = self.commits.spawn(carry_out(Arc::clone(&self.commit), items, callers));
        self.under_way.insert(commit.id(), UnderWay { organizations, is_large });
    }

    /// Waits until a group arrives or a commit ends.
    async fn wait(&mut self) {
        tokio::select! {
            group = self.groups.recv(), if self.open => match group {
                Some(group) => self.line_up(group),
                None => self.open = false,
            },
            Some(ended) = self.commits.join_next_with_id() => {
                self.under_way.remove(&ended.map_or_else(|panicked| panicked.id(), |(id, ())| id));
            }
        }
    }
}

async fn carry_out<T, R>(commit: Commit<T, R>, items: Vec<T>, callers: Callers<R>) {
    match commit(items).await {
        Ok(results) => {
            let mut results = results.into_iter();
            for (count, answer) in callers {
                // A caller that left needs no answer. Its items are committed nevertheless.
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
    async fn what_waits_during_a_commit_shares_the_next_and_answers_find_their_callers() {
        let (commits, gate) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Semaphore::new(0)));
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
        let batcher = Batcher::start(
            BatchLimits { lanes: 1, reserved: 0, batch: 1000, queue: 1000 },
            |_| 1,
            commit,
        );
        let first = batcher.commit(Owner::ANYBODY, vec![0, 1]);
        let others = async {
            // The others arrive while the first is in flight.
            while commits.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
            let open = async { gate.add_permits(2) };
            tokio::join!(
                join_all((1..100).map(|n| batcher.commit(Owner::ANYBODY, vec![n, n + 1]))),
                open
            )
            .0
        };
        let (first, others) = tokio::join!(first, others);
        let answers = std::iter::once(first).chain(others);
        for (n, answer) in (0..).zip(answers) {
            assert_eq!(answer.unwrap(), [n * 10, (n + 1) * 10]);
        }
        assert_eq!(commits.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_second_commit_goes_beside_one_in_flight_and_a_panic_ends_only_its_own() {
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
        let batcher = Batcher::start(
            BatchLimits { lanes: 2, reserved: 0, batch: 8, queue: 10 },
            |_| 1,
            commit,
        );
        let first = batcher.commit(Owner::ANYBODY, vec![1]);
        let others = async {
            tokio::task::yield_now().await;
            let second = batcher.commit(Owner::ANYBODY, vec![2, 3]).await;
            gate.add_permits(1);
            second
        };
        let (first, second) = tokio::join!(first, others);
        assert_eq!((first.unwrap(), second.unwrap()), (vec![1], vec![2, 3]));
        assert_eq!(
            batcher.commit(Owner::ANYBODY, vec![7]).await.unwrap_err().reason,
            outrider_model::Reason::Unavailable
        );
        assert_eq!(batcher.commit(Owner::ANYBODY, vec![8]).await.unwrap(), [8]);
    }

    fn owner(organization: u64) -> Owner {
        let at = outrider_model::Timestamp(0);
        Owner {
            organization: OrganizationId::new(at, organization),
            project: outrider_model::ProjectId::new(at, organization),
        }
    }

    /// The items of a commit, and the handle that lets it end.
    type Begun = (Vec<u32>, oneshot::Sender<()>);

    /// Makes commits that are reported when they begin, and end when the test lets them.
    fn gated() -> (Commit<u32, u32>, mpsc::UnboundedReceiver<Begun>) {
        let (begun, commits) = mpsc::unbounded_channel();
        let commit: Commit<u32, u32> = Arc::new(move |batch| {
            let (end, ended) = oneshot::channel();
            begun.send((batch.clone(), end)).unwrap();
            Box::pin(async move {
                ended.await.map(|()| batch).map_err(|_| Error::unavailable("given up"))
            })
        });
        (commit, commits)
    }

    #[tokio::test]
    async fn whoever_newly_comes_goes_beside_large_commits_of_others_and_those_leave_a_lane() {
        let (commit, mut commits) = gated();
        let batcher = Arc::new(Batcher::start(
            BatchLimits { lanes: 3, reserved: 1, batch: 8, queue: 1_000 },
            |_| 1,
            commit,
        ));
        let publish = |organization: u64, item: u32, count: usize| {
            let batcher = Arc::clone(&batcher);
            tokio::spawn(
                async move { batcher.commit(owner(organization), vec![item; count]).await },
            )
        };
        // Many more calls of one organization than its lanes take.
        let mut calls: Vec<_> = (0..20).map(|_| publish(1, 1, 8)).collect();
        let first = commits.recv().await.expect("a commit");
        let second = commits.recv().await.expect("another beside it");
        // The third lane is for another organization.
        calls.push(publish(2, 2, 1));
        let third = commits.recv().await.expect("a commit of the other");
        assert_eq!((first.0, second.0), (vec![1; 8], vec![1; 8]));
        assert_eq!(third.0, [2], "of nobody else");
        for commit in [first.1, second.1, third.1] {
            commit.send(()).unwrap();
        }
        while calls.iter().any(|call| !call.is_finished()) {
            tokio::select! {
                Some((_, end)) = commits.recv() => end.send(()).unwrap(),
                () = tokio::task::yield_now() => {}
            }
        }
        for call in calls {
            assert!(call.await.unwrap().is_ok());
        }
    }

    #[tokio::test]
    async fn whoever_newly_comes_goes_beside_one_heavy_item_but_not_beside_a_few_light_ones() {
        for (weight, count, beside) in
            [(62, 1, true), (17, 1, true), (16, 1, false), (1, 40, false), (1, 64, true)]
        {
            let (commit, mut commits) = gated();
            let limits = BatchLimits { lanes: 3, reserved: 1, batch: 256, queue: 1_000 };
            let batcher = Arc::new(Batcher::start(limits, |weight| *weight as usize, commit));
            let publish = |organization: u64, items: Vec<u32>| {
                let batcher = Arc::clone(&batcher);
                tokio::spawn(async move { batcher.commit(owner(organization), items).await })
            };
            let heavy = publish(1, vec![weight; count]);
            let first = commits.recv().await.expect("a commit");
            let light = publish(2, vec![1]);
            let case = format!("{count} of weight {weight}");
            if beside {
                let second = commits.recv().await.expect("another beside it");
                assert_eq!(second.0, [1], "{case}");
                second.1.send(()).unwrap();
                assert!(light.await.unwrap().is_ok(), "{case}");
                first.1.send(()).unwrap();
            } else {
                // The call is in line once the task is idle.
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                assert!(commits.try_recv().is_err(), "{case}");
                first.1.send(()).unwrap();
                commits.recv().await.expect("the next").1.send(()).unwrap();
                assert!(light.await.unwrap().is_ok(), "{case}");
            }
            assert!(heavy.await.unwrap().is_ok(), "{case}");
        }
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
        let batcher = Batcher::start(
            BatchLimits { lanes: 1, reserved: 0, batch: 100, queue: 1000 },
            |weight| *weight,
            commit,
        );
        let answers =
            join_all((0..200).map(|n| batcher.commit(Owner::ANYBODY, vec![n % 40 + 1]))).await;
        assert!(answers.into_iter().zip(0..).all(|(answer, n)| answer.unwrap() == [n % 40 + 1]));
        let largest = largest.load(Ordering::SeqCst);
        assert!((100..140).contains(&largest), "{largest}");
    }

    #[tokio::test]
    async fn refuses_when_full_and_reports_a_failed_commit_to_all() {
        let commit: Commit<u32, u32> =
            Arc::new(|_| Box::pin(async { Err(Error::unavailable("down")) }));
        let batcher = Batcher::start(
            BatchLimits { lanes: 1, reserved: 0, batch: 10, queue: 1 },
            |_| 1,
            commit,
        );
        let answers = join_all((0..5).map(|n| batcher.try_commit(Owner::ANYBODY, vec![n]))).await;
        assert!(answers.iter().all(Result::is_err));
        assert!(answers.iter().any(
            |answer| answer.as_ref().unwrap_err().reason == outrider_model::Reason::Overloaded
        ));
    }
}
