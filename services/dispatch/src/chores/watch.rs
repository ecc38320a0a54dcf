//! Repair: notices that the queue was emptied or replaced, and asks the queue about deliveries that
//! stay unsettled.

use std::time::Duration;

use outrider_failpoints::{Point, pass};
use outrider_model::{DeliveryId, Timestamp};
use outrider_store::{LedgerError, QueuedRef};
use tokio::time::{Instant, sleep};

use crate::{handoff::Handoff, measure, shared::Shared};

/// How many deliveries one round trip asks about.
const PAGE: u32 = 1_000;
/// How far the frequent check reaches back before the end of the last one: longer than rows take to
/// be committed, and longer than the clocks of processes differ until they are measured again.
const REACH: Duration = Duration::from_secs(300);
/// The check of all older rows rests this many times as long as it took. While a long transaction
/// makes it expensive, it uses a tenth of a connection.
const REST: u32 = 9;
/// How often the partitions of the coming days are checked, which is one cheap query. If a clock
/// jumps by more days than there are partitions, nothing can be committed until then.
const PREPARE_PERIOD: Duration = Duration::from_secs(10);

/// The part of dispatch that repairs.
pub struct QueueWatch {
    shared: Shared,
    handoff: Handoff,
}

impl QueueWatch {
    pub fn new(shared: Shared, handoff: Handoff) -> Self {
        Self { shared, handoff }
    }

    /// Watches until the task is aborted.
    pub async fn run(&self) {
        tokio::join!(self.watch_epochs(), self.watch_overdue(), self.watch_older(), self.prepare());
    }

    /// Keeps the known epochs equal to those of the queue. Rows with another epoch are not queued.
    async fn watch_epochs(&self) {
        let mut known = Vec::new();
        let mut period = tokio::time::interval(self.shared.options.epoch_period);
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = period.tick() => {}
                () = self.handoff.epochs_doubted() => {}
            }
            match self.shared.queue.epochs().await {
                Err(error) => {
                    tracing::warn!(%error, "the queue does not answer; deliveries wait in the \
                        database");
                    self.handoff.set_unavailable();
                }
                Ok(epochs) if epochs == known => self.handoff.set_epochs(epochs),
                Ok(epochs) => {
                    self.handoff.set_epochs(epochs.clone());
                    pass(Point::BeforeEpochRepair);
                    match self.shared.ledger.unqueue_other_epochs(&epochs).await {
                        Ok(count) => {
                            measure::of_former_queue(count);
                            if !known.is_empty() || count > 0 {
                                tracing::info!(
                                    deliveries = count,
                                    "the queue has a new identity; what it lost is queued again"
                                );
                            }
                            pass(Point::AfterEpochRepair);
                            known = epochs;
                            self.handoff.feed_all();
                        }
                        Err(why) => {
                            tracing::warn!(%why, "deliveries of a former queue are not yet known")
                        }
                    }
                }
            }
        }
    }

    /// Asks the queue about deliveries that are marked as queued and stay unsettled. Most of what
    /// the last check covered is left out, because PostgreSQL would scan all rows that ended since
    /// the oldest transaction began.
    async fn watch_overdue(&self) {
        let mut period = tokio::time::interval(self.look_period());
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut looked = self.shared.store.clock().now();
        loop {
            period.tick().await;
            let now = self.shared.store.clock().now();
            match self.check(looks_after(looked, now), Duration::ZERO).await {
                Ok(()) => looked = now,
                Err(why) => tracing::warn!(%why, "overdue deliveries were not checked"),
            }
        }
    }

    /// Does the same for older deliveries: those that nobody asked about while all processes were
    /// down, and those that took long to commit.
    async fn watch_older(&self) {
        loop {
            let begin = Instant::now();
            if let Err(why) = self.check(Timestamp(0), REACH).await {
                tracing::warn!(%why, "deliveries that have long been overdue were not checked");
            }
            sleep(self.look_period().max(begin.elapsed() * REST)).await;
        }
    }

    fn look_period(&self) -> Duration {
        (self.shared.options.check_after / 3).max(Duration::from_millis(100))
    }

    /// Checks deliveries to ask about, from `after` until `ago` before now, by page.
    async fn check(&self, after: Timestamp, ago: Duration) -> Result<(), LedgerError> {
        while self.check_page(after, ago).await? == PAGE as usize {}
        Ok(())
    }

    async fn check_page(&self, after: Timestamp, ago: Duration) -> Result<usize, LedgerError> {
        let Shared { ledger, store, queue, options, .. } = &self.shared;
        // Computed for each page, so that deliveries that were deferred do not come again if the
        // clock stepped back.
        let until = store.clock().now().minus(ago);
        let overdue = ledger.overdue(after, until, PAGE).await?;
        if overdue.is_empty() {
            return Ok(0);
        }
        let asked: Vec<_> = overdue.iter().map(|row| (row.endpoint, row.delivery)).collect();
        let held = queue
            .held(&asked)
            .await
            .map_err(|error| LedgerError::Unavailable(error.to_string()))?;
        let (waiting, lost): (Vec<_>, Vec<_>) =
            overdue.iter().zip(held).partition(|(_, held)| held.is_some());
        let refs = |rows: Vec<(&QueuedRef, Option<u32>)>| -> Vec<(DeliveryId, u32)> {
            rows.into_iter().map(|(row, _)| (row.delivery, row.generation)).collect()
        };
        let (waiting, lost) = (refs(waiting), refs(lost));
        if !waiting.is_empty() {
            pass(Point::BeforeExtend);
            ledger.extend(&waiting, store.clock().now().plus(options.check_after)).await?;
        }
        if !lost.is_empty() {
            tracing::warn!(
                deliveries = lost.len(),
                "the queue lacks jobs that were queued; they are queued again"
            );
            pass(Point::BeforeLostRepair);
            ledger.unqueue(&lost).await?;
            pass(Point::AfterLostRepair);
            measure::lost(lost.len());
            self.handoff.feed_all();
        }
        Ok(overdue.len())
    }

    async fn prepare(&self) {
        let mut period = tokio::time::interval(PREPARE_PERIOD);
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            if let Err(why) = self.shared.ledger.prepare(self.shared.store.clock().now()).await {
                tracing::warn!(%why, "the partitions of the days to come were not made");
            }
        }
    }
}

/// Returns where a check begins that continues where another ended. If the clock stepped back
/// since, new rows have earlier times.
fn looks_after(looked: Timestamp, now: Timestamp) -> Timestamp {
    looked.min(now).minus(REACH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_goes_on_where_the_last_one_ended_and_back_with_the_clock() {
        let (noon, hour) = (Timestamp(1_700_000_000_000_000), Duration::from_secs(3600));
        assert_eq!(looks_after(noon, noon.plus(hour)), noon.minus(REACH));
        assert_eq!(looks_after(noon, noon.minus(hour)), noon.minus(hour).minus(REACH));
    }
}
