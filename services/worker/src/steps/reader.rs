//! Takes jobs from the queue when there is room for them: new ones, and those that another worker
//! abandoned.

use std::sync::Arc;

use outrider_failpoints::{Point, pass};
use outrider_model::Result;
use outrider_queue::LeasedJob;
use tokio::time::Instant;

use super::{intake, places::Places};
use crate::{backoff::Backoff, shared::Shared};

/// The only task that reads.
pub(crate) struct Reader {
    shared: Arc<Shared>,
    reclaim_at: Instant,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        // Workers that start together do not look for abandoned jobs together.
        let reclaim_at = Instant::now() + shared.options.reclaim_period.mul_f64(rand::random());
        Self { shared, reclaim_at }
    }

    /// Reads until the shutdown. A read that began then is awaited, because the queue has handed
    /// its jobs out.
    pub(crate) async fn run(mut self) {
        let stop = self.shared.shutdown.clone();
        let mut backoff = Backoff::new();
        while !stop.is_cancelled() {
            let Some(places) = stop.run_until_cancelled(Places::wait(&self.shared)).await else {
                break;
            };
            // Taken before the read, because no lease begins earlier.
            let read_at = Instant::now();
            match self.take(places.jobs()).await {
                Ok(jobs) => {
                    backoff.reset();
                    intake::accept(&self.shared, jobs, places, read_at);
                }
                Err(error) => {
                    tracing::warn!(%error, "no jobs can be read");
                    drop(places);
                    stop.run_until_cancelled(backoff.wait()).await;
                }
            }
        }
    }

    async fn take(&mut self, most: usize) -> Result<Vec<LeasedJob>> {
        let Shared { queue, options, given, .. } = self.shared.as_ref();
        let now = Instant::now();
        if now >= self.reclaim_at {
            self.reclaim_at = now + options.reclaim_period;
            let jobs = queue.reclaim(&given.consumer, most).await?;
            if jobs.len() >= most {
                // There may be more.
                self.reclaim_at = now;
            }
            if !jobs.is_empty() {
                pass(Point::AfterReclaim);
                return Ok(jobs);
            }
        }
        // At most until the next look for abandoned jobs, which then begins on time.
        let wait = options.read_wait.min(self.reclaim_at.saturating_duration_since(now));
        let jobs = queue.read(&given.consumer, most, wait).await?;
        if !jobs.is_empty() {
            pass(Point::AfterRead);
        }
        Ok(jobs)
    }
}
