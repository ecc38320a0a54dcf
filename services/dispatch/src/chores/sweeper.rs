//! The sweeper removes what is past its retention, by day and in steps, and erases payloads that a
//! project no longer keeps.
//!
//! Every process of the role sweeps. Steps are small and repeatable, and on PostgreSQL only one
//! process runs a step at a time. Publishing and settling take precedence.

use std::{collections::HashMap, time::Duration};

use outrider_model::{Error, EventId, ProjectId, Result, Timestamp};
use outrider_store::{Erased, Progress, Step};
use tokio::sync::Mutex;

use crate::{measure, shared::Shared};

/// The rest between two steps.
const REST: Duration = Duration::from_millis(50);
/// How many projects are read at once.
const PROJECTS: u64 = 100;
/// How many steps one project gets before the next has its turn.
const STEPS: usize = 100;
/// How many of these steps examine events that had a pending delivery the last time. The next sweep
/// continues where this one stops.
const HELD_STEPS: usize = 20;
/// How late an event may be committed after its time so that its payload is still erased by age. A
/// clock may step back by any time.
const LATE: Duration = Duration::from_secs(900);

/// How a sweep or a part of it ended. The worst of several counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ended {
    Done,
    /// The rows to remove were in use.
    Blocked,
    Failed,
}

impl Ended {
    /// Returns the end of a part, and logs a failure.
    fn of(part: &'static str, progress: Result<Progress>) -> Self {
        match progress {
            Ok(Progress::Blocked) => Self::Blocked,
            Ok(_) => Self::Done,
            Err(error) => {
                tracing::warn!(%error, part, "a part of a sweep was not finished; the next sweep \
                    tries again");
                Self::Failed
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Blocked => "blocked",
            Self::Failed => "failed",
        }
    }
}

/// The part of dispatch that removes old data.
pub struct Sweeper {
    shared: Shared,
    /// By project, where the next sweep continues among events that a pending delivery held.
    places: Mutex<HashMap<ProjectId, EventId>>,
}

impl Sweeper {
    pub fn new(shared: Shared) -> Self {
        Self { shared, places: Mutex::default() }
    }

    /// Sweeps now and at each period, until the task is aborted.
    pub async fn run(&self) {
        let mut period = tokio::time::interval(self.shared.options.sweep_period);
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            self.prune_log().await;
            measure::swept(self.sweep().await.name());
        }
    }

    /// Runs each part, whether or not the others succeed.
    async fn sweep(&self) -> Ended {
        let Shared { store, options, .. } = &self.shared;
        let now = store.clock().now();
        let keys_since = now.minus(options.idempotency_lifetime);
        let before = (!options.retention.is_zero()).then(|| now.minus(options.retention));
        let written = store.write_down(before, keys_since).await.map(|()| Progress::Done);
        let mut ended = Ended::of("what may go", written);
        match store.may_drop().await {
            Ok(true) => {
                ended = ended.max(Ended::of(
                    "idempotency keys",
                    self.repeat(|| store.prune_keys(keys_since)).await,
                ));
                if let Some(before) = before {
                    ended = ended.max(self.drop_days(before).await);
                }
            }
            // The owner of the tables removes it, with `outrider migrate up`.
            Ok(false) => {}
            Err(error) => ended = ended.max(Ended::of("days", Err(error))),
        }
        let oldest = store.oldest_day().await.map(|day| {
            measure::oldest_day(day);
            Progress::Done
        });
        ended = ended.max(Ended::of("the oldest day", oldest));
        if !options.change_retention.is_zero() {
            let changes =
                self.repeat(|| store.prune_changes(now.minus(options.change_retention))).await;
            ended = ended.max(Ended::of("changes", changes));
        }
        ended.max(self.erase_payloads(now).await)
    }

    async fn drop_days(&self, before: Timestamp) -> Ended {
        let days = match self.shared.store.old_days(before).await {
            Ok(days) => days,
            Err(error) => return Ended::of("days", Err(error)),
        };
        let (mut held, mut ended) = (0, Ended::Done);
        for day in days {
            let progress = self.drop_day(day).await;
            held += i64::from(matches!(progress, Ok(Progress::Held)));
            let of_day = Ended::of("a day", progress);
            ended = ended.max(of_day);
            if of_day == Ended::Blocked {
                // What blocks one day would block every day, and publishing waits behind each try.
                break;
            }
            tokio::time::sleep(REST).await;
        }
        measure::held_days(held);
        ended
    }

    async fn drop_day(&self, day: i32) -> Result<Progress> {
        let store = &self.shared.store;
        if store.is_day_held(day).await? {
            return Ok(Progress::Held);
        }
        self.repeat(|| store.drop_day(day)).await
    }

    /// Repeats a step, with rests, until nothing is left or nothing can be done for now.
    async fn repeat<F: Future<Output = Result<Step>>>(
        &self,
        step: impl Fn() -> F,
    ) -> Result<Progress> {
        loop {
            let Step { gone, progress } = step().await?;
            measure::gone(&gone);
            if progress != Progress::More {
                return Ok(progress);
            }
            tokio::time::sleep(REST).await;
        }
    }

    /// Repeats the turns until nothing is left to erase.
    async fn erase_payloads(&self, now: Timestamp) -> Ended {
        let (mut again, mut ended) =
            (Some(LATE.saturating_add(self.shared.options.sweep_period)), Ended::Done);
        loop {
            match self.erase_in_turn(now, again.take(), &mut ended).await {
                Ok(true) => tokio::time::sleep(REST).await,
                Ok(false) => return ended,
                Err(error) => return Ended::of("payloads", Err(error)),
            }
        }
    }

    /// Gives a turn to each project that has its own retention of payloads. Returns whether there
    /// is more to erase. Payloads that became too old within the time `again` are examined again.
    async fn erase_in_turn(
        &self,
        now: Timestamp,
        again: Option<Duration>,
        ended: &mut Ended,
    ) -> Result<bool> {
        let (mut after, mut more) = (None, false);
        loop {
            let projects = self.shared.store.payload_retentions(after, PROJECTS).await?;
            for (project, kept) in &projects {
                let before = now.minus(*kept);
                let erased = async {
                    let more = self
                        .erase_of_project(*project, before, again.map(|again| before.minus(again)))
                        .await?;
                    self.erase_held(*project, before).await?;
                    Ok::<bool, Error>(more)
                };
                match erased.await {
                    Ok(of_project) => more |= of_project,
                    // The others still have their turn.
                    Err(error) => {
                        tracing::warn!(%error, project_id = %project,
                            "payloads of a project were not erased");
                        *ended = Ended::Failed;
                    }
                }
            }
            after = projects.last().map(|(project, _)| *project);
            if (projects.len() as u64) < PROJECTS {
                return Ok(more);
            }
        }
    }

    async fn erase_of_project(
        &self,
        project: ProjectId,
        before: Timestamp,
        mut again: Option<Timestamp>,
    ) -> Result<bool> {
        for _ in 0..STEPS {
            let Erased { payloads, progress } =
                self.shared.store.erase_old_payloads(project, before, again.take()).await?;
            measure::erased("retention", payloads);
            if progress != Progress::More {
                return Ok(false);
            }
            tokio::time::sleep(REST).await;
        }
        Ok(true)
    }

    async fn erase_held(&self, project: ProjectId, before: Timestamp) -> Result<()> {
        let mut places = self.places.lock().await;
        for _ in 0..HELD_STEPS {
            let place = places.get(&project).copied();
            let (Erased { payloads, progress }, next) =
                self.shared.store.erase_held_payloads(project, before, place).await?;
            measure::erased("retention", payloads);
            match next {
                Some(next) => places.insert(project, next),
                None => places.remove(&project),
            };
            if progress != Progress::More {
                return Ok(());
            }
            tokio::time::sleep(REST).await;
        }
        Ok(())
    }

    /// The commit log, which tails read, has its own retention.
    async fn prune_log(&self) {
        let kept_from = self.shared.store.clock().now().minus(self.shared.options.tail_retention);
        loop {
            match self.shared.ledger.prune_log(kept_from).await {
                Ok(true) => tokio::time::sleep(REST).await,
                Ok(false) => return,
                Err(why) => {
                    tracing::warn!(%why, "the log of commits was not pruned; the next sweep tries \
                        again");
                    return;
                }
            }
        }
    }
}
