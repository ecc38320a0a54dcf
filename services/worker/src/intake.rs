//! From what the queue hands out to what is to be sent: a job that is in hand already, of the past
//! or unusable stops here.

use std::{future::Future, sync::Arc};

use outrider_model::Result;
use outrider_proto::internal::HoldReason;
use outrider_queue::{LeasedJob, Receipt};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use crate::{
    backoff::Backoff,
    job::{self, HeldJob, Ids, Key, Outcome},
    leases::Taken,
    measure,
    reader::Room,
    reporter::Report,
    shared::Shared,
    turns,
};

/// Takes jobs in hand and lets them go on. Does not wait for anything.
pub(crate) fn accept(shared: &Arc<Shared>, jobs: Vec<LeasedJob>, mut room: Room, read_at: Instant) {
    let now = shared.lookup.now();
    let oldest = now.minus(shared.given.lease);
    let (mut sure, mut doubtful) = (Vec::with_capacity(jobs.len()), Vec::new());
    for leased in jobs {
        let Some(place) = room.next() else {
            tracing::error!(
                "the queue handed out more jobs than were asked for; the rest is left to its leases"
            );
            break;
        };
        // It may be of the past.
        let doubts = !leased.first || job::queued_at(&leased.job) < oldest;
        let Some(job) = take_in_hand(shared, leased, place, read_at) else { continue };
        measure::read(now, job::queued_at(&job.job));
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

/// The job, unless it is unusable or its attempt is in hand.
fn take_in_hand(
    shared: &Shared,
    leased: LeasedJob,
    place: OwnedSemaphorePermit,
    read_at: Instant,
) -> Option<HeldJob> {
    let LeasedJob { job, receipt, .. } = leased;
    let Some(ids) = Ids::of(&job) else {
        // Nothing can be reported without ids.
        tracing::error!(
            shard = receipt.shard,
            entry = receipt.entry,
            "a job without proper ids is left in the queue"
        );
        return None;
    };
    if job.epoch != receipt.epoch {
        tracing::debug!(delivery = %ids.delivery, "a job of another epoch is dropped");
        free(shared, &job, receipt, place);
        return None;
    }
    if let Some(why) = job::unusable(&job) {
        tracing::error!(delivery = %ids.delivery, why, "a job is not sent");
        free(shared, &job, receipt, place);
        return None;
    }
    let key = Key { delivery: ids.delivery, attempt: job.attempt };
    match shared.leases.take(key, job.generation, receipt.clone()) {
        Taken::New => {
            let payload = job::inline_payload(&job);
            Some(HeldJob { job, ids, read_at, payload, place })
        }
        Taken::Again => {
            tracing::debug!(delivery = %ids.delivery, "a job that is in hand was handed out again");
            None
        }
        Taken::OtherGeneration => {
            // What is in hand settles the delivery's attempt; this would send it twice.
            free(shared, &job, receipt, place);
            None
        }
    }
}

/// Reports a job that was not taken in hand, so that its place in the queue is freed.
fn free(
    shared: &Shared,
    job: &outrider_proto::internal::Job,
    receipt: Receipt,
    place: OwnedSemaphorePermit,
) {
    let report = job::report(job, receipt, Outcome::Held(HoldReason::Stale));
    shared.send(Report { key: None, report, place, answer: None });
}

/// Those of the jobs that the database still names; the others are reported as stale.
pub(crate) async fn still_current(shared: &Shared, jobs: Vec<HeldJob>) -> Vec<HeldJob> {
    if jobs.is_empty() {
        return jobs;
    }
    let questions: Vec<_> = jobs.iter().map(HeldJob::question).collect();
    let Some(answers) =
        persist(shared, "jobs cannot be checked", || shared.lookup.current(&questions)).await
    else {
        release(shared, jobs);
        return Vec::new();
    };
    let mut current = Vec::with_capacity(jobs.len());
    for (job, answer) in jobs.into_iter().zip(answers) {
        if answer {
            current.push(job);
        } else {
            shared.report(job, Outcome::Held(HoldReason::Stale));
        }
    }
    current
}

fn release(shared: &Shared, jobs: Vec<HeldJob>) {
    for job in jobs {
        shared.report(job, Outcome::Held(HoldReason::Released));
    }
}

/// Asks until there is an answer, while the leases are renewed; none when the worker shuts down.
pub(crate) async fn persist<T, F, A>(shared: &Shared, trouble: &'static str, ask: F) -> Option<T>
where
    F: Fn() -> A + Send,
    A: Future<Output = Result<T>> + Send,
    T: Send,
{
    let mut backoff = Backoff::new();
    let answered = async {
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(error) => {
                    if shared.complaints.due() {
                        tracing::warn!(%error, jobs = shared.leases.len(), "{trouble}");
                    }
                    backoff.wait().await;
                }
            }
        }
    };
    shared.shutdown.run_until_cancelled(answered).await
}
