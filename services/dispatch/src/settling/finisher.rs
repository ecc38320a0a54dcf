//! Removes settled jobs from the queue, in batches, after their settlement is committed. This frees
//! room, so the feeder is woken.

use std::time::Duration;

use outrider_failpoints::{Point, pass};
use outrider_queue::Done;
use outrider_telemetry::essential;
use tokio::sync::mpsc;

use crate::{handoff::Handoff, shared::Shared};

/// The most jobs in one round trip to the queue.
const BATCH: usize = 512;
/// How often to try while the queue does not answer. Jobs that stay are found when their lease runs
/// out, and dropped as settled.
const TRIES: u32 = 20;
const WAIT: Duration = Duration::from_millis(500);

/// A handle that is cheap to clone.
#[derive(Clone)]
pub struct Finisher {
    done: mpsc::Sender<Done>,
}

impl Finisher {
    /// Starts the task.
    pub fn start(shared: Shared, handoff: Handoff) -> Self {
        let (done, receiver) = mpsc::channel(shared.options.finish_queue);
        tokio::spawn(essential("finisher", run(shared, handoff, receiver)));
        Self { done }
    }

    /// Has these jobs removed soon.
    pub fn submit(&self, done: Vec<Done>) {
        for job in done {
            if self.done.try_send(job).is_err() {
                tracing::warn!(
                    "too many finished jobs wait; some stay in the queue until their lease runs out"
                );
                return;
            }
        }
    }
}

async fn run(shared: Shared, handoff: Handoff, mut receiver: mpsc::Receiver<Done>) {
    let mut batch = Vec::with_capacity(BATCH);
    while receiver.recv_many(&mut batch, BATCH).await > 0 {
        pass(Point::BeforeFinish);
        finish(&shared, &batch).await;
        pass(Point::AfterFinish);
        let freed: Vec<_> = batch
            .iter()
            .map(|done| done.endpoint)
            .filter(|endpoint| handoff.is_congested(*endpoint))
            .collect();
        if !freed.is_empty() {
            handoff.feed(freed);
        }
        batch.clear();
    }
}

async fn finish(shared: &Shared, batch: &[Done]) {
    for _ in 0..TRIES {
        match shared.queue.finish(batch).await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(%error, jobs = batch.len(), "settled jobs stay in the queue for now")
            }
        }
        tokio::time::sleep(WAIT).await;
    }
}
