//! The sweeper: what is older than it is kept goes, day by day and step by step, and payloads that a project keeps no longer are erased.
//!
//! Every process of the role sweeps. Steps are small and repeatable, and on PostgreSQL one process takes a step at a time; whoever publishes
//! or settles at the same time comes first.

use std::{collections::HashMap, time::Duration};

use outrider_model::{Error, EventId, ProjectId, Result, Timestamp};
use outrider_store::{Erased, OldDay, Progress, Step};
use tokio::sync::Mutex;

use crate::{Shared, measure};

/// Between two steps.
const REST: Duration = Duration::from_millis(50);
/// Projects looked up at once.
const PROJECTS: u64 = 100;
/// Steps for one project before it is another's turn.
const STEPS: usize = 100;
/// Of those, over events that had a pending delivery the last time: the next sweep goes on where this one stops.
const HELD_STEPS: usize = 20;
/// So long after its time an event may be committed and its payload is erased by age all the same; and a clock may go back by any time.
const LATE: Duration = Duration::from_secs(900);

/// The part of dispatch that lets go.
pub struct Sweeper {
    shared: Shared,
    /// Where the next sweep goes on among the events of a project that a pending delivery held.
    places: Mutex<HashMap<ProjectId, EventId>>,
}

impl Sweeper {
    pub fn new(shared: Shared) -> Self {
        Self { shared, places: Mutex::default() }
    }

    /// Sweeps for ever: now, and at each period.
    pub async fn run(&self) {
        let mut period = tokio::time::interval(self.shared.options.sweep_period);
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            self.prune_log().await;
            if let Err(error) = self.sweep().await {
                tracing::warn!(%error, "a sweep was not finished; the next one goes on");
                measure::swept("failed");
            }
        }
    }

    async fn sweep(&self) -> Result<()> {
        let Shared { store, options, .. } = &self.shared;
        let now = store.clock().now();
        let mut blocked = self.repeat(|| store.prune_keys(now.minus(options.idempotency_lifetime))).await? == Progress::Blocked;
        if !options.retention.is_zero() {
            blocked |= self.drop_days(now.minus(options.retention)).await?;
        }
        measure::oldest_day(store.oldest_day().await?);
        if !options.change_retention.is_zero() {
            self.repeat(|| store.prune_changes(now.minus(options.change_retention))).await?;
        }
        let mut again = Some(LATE.saturating_add(options.sweep_period));
        while self.erase_payloads(now, again.take()).await? {
            tokio::time::sleep(REST).await;
        }
        measure::swept(if blocked { "blocked" } else { "done" });
        Ok(())
    }

    /// Whether a day was not dropped because somebody used it.
    async fn drop_days(&self, before: Timestamp) -> Result<bool> {
        let store = &self.shared.store;
        let (mut held, mut blocked) = (0, false);
        for OldDay { day, held: is_held } in store.old_days(before).await? {
            let progress = if is_held { Progress::Held } else { self.repeat(|| store.drop_day(day)).await? };
            held += i64::from(progress == Progress::Held);
            if progress == Progress::Blocked {
                // Whoever is in the way would be in that of every day, and publishing waits behind each try.
                blocked = true;
                break;
            }
            tokio::time::sleep(REST).await;
        }
        measure::held_days(held);
        Ok(blocked)
    }

    /// Step after step, with rests, until there is no more, or none for now.
    async fn repeat<F: Future<Output = Result<Step>>>(&self, step: impl Fn() -> F) -> Result<Progress> {
        loop {
            let Step { gone, progress } = step().await?;
            measure::gone(&gone);
            if progress != Progress::More {
                return Ok(progress);
            }
            tokio::time::sleep(REST).await;
        }
    }

    /// A turn for each project that keeps payloads for a time of its own; whether there is more to erase. What became too old in the time
    /// `again` is looked at again.
    async fn erase_payloads(&self, now: Timestamp, again: Option<Duration>) -> Result<bool> {
        let (mut after, mut more) = (None, false);
        loop {
            let projects = self.shared.store.payload_retentions(after, PROJECTS).await?;
            for (project, kept) in &projects {
                let before = now.minus(*kept);
                let erased = async {
                    let more = self.erase_of_project(*project, before, again.map(|again| before.minus(again))).await?;
                    self.erase_held(*project, before).await?;
                    Ok::<bool, Error>(more)
                };
                match erased.await {
                    Ok(of_project) => more |= of_project,
                    // The others have their turn all the same.
                    Err(error) => tracing::warn!(%error, project_id = %project, "payloads of a project were not erased"),
                }
            }
            after = projects.last().map(|(project, _)| *project);
            if (projects.len() as u64) < PROJECTS {
                return Ok(more);
            }
        }
    }

    async fn erase_of_project(&self, project: ProjectId, before: Timestamp, mut again: Option<Timestamp>) -> Result<bool> {
        for _ in 0..STEPS {
            let Erased { payloads, progress } = self.shared.store.erase_old_payloads(project, before, again.take()).await?;
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
            let (Erased { payloads, progress }, next) = self.shared.store.erase_held_payloads(project, before, place).await?;
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

    /// The log of commits, which tails read, has a time of its own.
    async fn prune_log(&self) {
        let kept_from = self.shared.store.clock().now().minus(self.shared.options.tail_retention);
        loop {
            match self.shared.ledger.prune_log(kept_from).await {
                Ok(true) => tokio::time::sleep(REST).await,
                Ok(false) => return,
                Err(why) => {
                    tracing::warn!(%why, "the log of commits was not pruned; the next sweep tries again");
                    return;
                }
            }
        }
    }
}
