//! Takes jobs from the queue in hand. Jobs that are in hand already or out of date stop here.

use std::sync::Arc;

use outrider_model::{HoldReason, Job, Receipt};
use outrider_queue::LeasedJob;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{asking::still_current, places::Places, turns};
use crate::{
    jobs::{self, HeldJob, Key, Outcome, Taken, UnsettledReport},
    measure,
    shared::Shared,
};

/// Takes jobs in hand and passes them on. Does not wait for anything.
pub(crate) fn accept(
    shared: &Arc<Shared>,
    jobs: Vec<LeasedJob>,
    mut places: Places,
    read_at: Instant,
) {
    let now = shared.lookup.now();
    let oldest = now.minus(shared.given.lease);
    let (mut sure, mut doubtful) = (Vec::with_capacity(jobs.len()), Vec::new());
    for leased in jobs {
        let Some(place) = places.next() else {
            tracing::error!(
                "the queue handed out more jobs than were asked for; the rest is left to its leases"
            );
            break;
        };
        // The job may be out of date.
        let doubts = !leased.first || leased.job.queued_at < oldest;
        let Some(job) = take_in_hand(shared, leased, place, read_at) else { continue };
        measure::read(now, job.job.queued_at);
        if doubts { doubtful.push(job) } else { sure.push(job) }
    }
    turns::enter(shared, sure);
    if !doubtful.is_empty() {
        let shared = Arc::clone(shared);
        shared.tasks.clone().spawn(async move {
            let keys = doubtful.iter().map(HeldJob::key).collect();
            let check =
                Box::pin(async { turns::enter(&shared, still_current(&shared, doubtful).await) });
            shared.with_jobs(keys, check).await;
        });
    }
}

/// Takes a job in hand, unless it is out of date or its attempt is in hand.
fn take_in_hand(
    shared: &Shared,
    leased: LeasedJob,
    place: OwnedSemaphorePermit,
    read_at: Instant,
) -> Option<HeldJob> {
    let LeasedJob { job, receipt, .. } = leased;
    if job.epoch != receipt.epoch {
        tracing::debug!(delivery = %job.delivery, "a job of another epoch is dropped");
        free(shared, &job, receipt, place);
        return None;
    }
    let key = Key { delivery: job.delivery, attempt: job.attempt };
    match shared.leases.take(key, job.generation, receipt.clone()) {
        Taken::New => {
            let payload = jobs::inline_payload(&job);
            Some(HeldJob { job, read_at, payload, place })
        }
        Taken::Again => {
            tracing::debug!(delivery = %job.delivery, "a job that is in hand was handed out again");
            None
        }
        Taken::OtherGeneration => {
            // The job in hand settles the attempt. This one would send it twice.
            free(shared, &job, receipt, place);
            None
        }
    }
}

/// Reports a job that was not taken in hand, so that its place in the queue is freed.
fn free(shared: &Shared, job: &Job, receipt: Receipt, place: OwnedSemaphorePermit) {
    let report = jobs::report(job, receipt, Outcome::Held(HoldReason::Stale));
    shared.send(UnsettledReport { key: None, report, place, answer: None });
}
