//! Periodic measurements of the whole deployment.

use std::time::Duration;

use outrider_telemetry::catalog::{
    dispatch::{CONGESTED, NARROW_WINDOWS, OLDEST_DUE, PENDING, QUEUE_AVAILABLE},
    queue,
};

use crate::{handoff::Handoff, measure, shared::Shared};

/// The number up to which pending deliveries are counted.
const COUNT_LIMIT: u32 = 100_000;

/// The part of dispatch that measures.
pub struct Meter {
    shared: Shared,
    handoff: Handoff,
}

impl Meter {
    pub fn new(shared: Shared, handoff: Handoff) -> Self {
        measure::expose();
        Self { shared, handoff }
    }

    /// Measures until the task is aborted.
    pub async fn run(&self) {
        let length = self.shared.options.measure_period;
        let mut period = tokio::time::interval(length);
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            self.measure_database(length).await;
            self.measure_queue().await;
        }
    }

    async fn measure_database(&self, period: Duration) {
        let now = self.shared.store.clock().now();
        match self.shared.ledger.pending_summary(now, COUNT_LIMIT).await {
            Ok(summary) => {
                PENDING.set(i64::try_from(summary.pending).unwrap_or(i64::MAX));
                OLDEST_DUE.set(summary.oldest_due.map_or(0.0, |due| now.since(due).as_secs_f64()));
            }
            Err(why) => {
                // Keep the last value: what was due then is still due.
                tracing::warn!(%why, "what is pending was not measured");
                if OLDEST_DUE.get() > 0.0 {
                    OLDEST_DUE.add(period.as_secs_f64());
                }
            }
        }
    }

    async fn measure_queue(&self) {
        NARROW_WINDOWS.set(i64::try_from(self.shared.windows.narrow()).unwrap_or(i64::MAX));
        CONGESTED.set(i64::try_from(self.handoff.congested_count()).unwrap_or(i64::MAX));
        QUEUE_AVAILABLE.set(i64::from(self.shared.queue.ready().await.is_ok()));
        let depths = self.shared.queue.depths().await;
        for (shard, depth) in depths.unwrap_or_default().into_iter().enumerate() {
            queue::JOBS
                .with_label_values(&[shard.to_string()])
                .set(i64::try_from(depth).unwrap_or(i64::MAX));
        }
    }
}
