//! Repair: notices when the queue was emptied or replaced, and asks it about deliveries that stay unsettled.

use std::time::Duration;

use outrider_failpoints::{Point, pass};
use outrider_model::DeliveryId;
use outrider_store::{LedgerError, QueuedRef};

use crate::{Shared, handoff::Handoff, measure};

/// Deliveries asked after in one round trip.
const PAGE: u32 = 1_000;
/// How often partitions of the days to come are looked after: one cheap look-up. A clock that jumps by more days than there are partitions
/// keeps everything from being committed until then.
const PREPARE_PERIOD: Duration = Duration::from_secs(10);

/// The part of dispatch that repairs.
pub struct Watch {
    shared: Shared,
    handoff: Handoff,
}

impl Watch {
    pub fn new(shared: Shared, handoff: Handoff) -> Self {
        Self { shared, handoff }
    }

    /// Watches for ever.
    pub async fn run(&self) {
        tokio::join!(self.watch_epochs(), self.watch_overdue(), self.prepare());
    }

    /// Keeps the known epochs those of the queue. Rows that bear another one are queued nowhere.
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
                    tracing::warn!(%error, "the queue does not answer; deliveries wait in the database");
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
                                tracing::info!(deliveries = count, "the queue has a new identity; what it lost is queued again");
                            }
                            pass(Point::AfterEpochRepair);
                            known = epochs;
                            self.handoff.feed_all();
                        }
                        Err(why) => tracing::warn!(%why, "deliveries of a former queue are not yet known"),
                    }
                }
            }
        }
    }

    /// Asks the queue about deliveries that are marked as queued and stay unsettled.
    async fn watch_overdue(&self) {
        let mut period = tokio::time::interval((self.shared.options.check_after / 3).max(Duration::from_millis(100)));
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            loop {
                match self.check_page().await {
                    Ok(count) if count == PAGE as usize => {}
                    Ok(_) => break,
                    Err(why) => {
                        tracing::warn!(%why, "overdue deliveries were not checked");
                        break;
                    }
                }
            }
        }
    }

    async fn check_page(&self) -> Result<usize, LedgerError> {
        let Shared { ledger, store, queue, options, .. } = &self.shared;
        let now = store.clock().now();
        let overdue = ledger.overdue(now, PAGE).await?;
        if overdue.is_empty() {
            return Ok(0);
        }
        let asked: Vec<_> = overdue.iter().map(|row| (row.endpoint, row.delivery)).collect();
        let held = queue.held(&asked).await.map_err(|error| LedgerError::Unavailable(error.to_string()))?;
        let (waiting, lost): (Vec<_>, Vec<_>) = overdue.iter().zip(held).partition(|(_, held)| held.is_some());
        let refs = |rows: Vec<(&QueuedRef, Option<u32>)>| -> Vec<(DeliveryId, u32)> {
            rows.into_iter().map(|(row, _)| (row.delivery, row.generation)).collect()
        };
        let (waiting, lost) = (refs(waiting), refs(lost));
        if !waiting.is_empty() {
            pass(Point::BeforeExtend);
            ledger.extend(&waiting, now.plus(options.check_after)).await?;
        }
        if !lost.is_empty() {
            tracing::warn!(deliveries = lost.len(), "the queue lacks jobs that were queued; they are queued again");
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
