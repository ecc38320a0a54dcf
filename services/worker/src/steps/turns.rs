//! Jobs wait for their turn: each for its share of the slots, and then, if its payload did not
//! travel with it, for its share of the payload bytes.

use std::{collections::HashSet, sync::Arc, time::Duration};

use outrider_model::HoldReason;
use outrider_model::endpoint::EndpointState;
use tokio::sync::OwnedSemaphorePermit;

use super::{asking::persist, sender};
use crate::{
    jobs::{HeldJob, Key, Outcome, Payload, Started},
    scheduler::{Amount, Asked, Grant},
    shared::Shared,
};

/// Maximum number of turns taken from a line at once.
const BATCH: usize = 256;

/// Time between two looks at the endpoints with waiting jobs.
const GATES: Duration = Duration::from_secs(1);

/// Maximum number of waiting jobs that a shutdown gives back.
const GIVEN_BACK: usize = 4_096;

/// A job with its slot, and the share of payload bytes for its payload.
type Fetchable = (Started, Grant<Started>);

/// Passes jobs on, now or when their turn comes.
pub(crate) fn enter(shared: &Arc<Shared>, jobs: Vec<HeldJob>) {
    let mut started = Vec::with_capacity(jobs.len());
    for job in jobs {
        match shared.slots.ask(job.recipient(), slots_of(shared, &job), job) {
            Asked::Granted(job, slot) => started.push(Started { job, slot }),
            Asked::Waits => {}
            Asked::Closed(job) => shared.report(job, Outcome::Held(HoldReason::Released)),
        }
    }
    start(shared, started);
}

/// Returns the slots that a job takes: one while its endpoint answers; otherwise one for each
/// `slot_payload_bytes` of a payload that did not travel with the job.
fn slots_of(shared: &Shared, job: &HeldJob) -> Amount {
    let parts =
        job.missing_payload().map_or(1, |bytes| bytes.div_ceil(shared.options.slot_payload_bytes));
    Amount::one_or(u32::try_from(parts).unwrap_or(u32::MAX).max(1))
}

/// Gives freed slots to the jobs that wait for them. Must be run by one task only.
pub(crate) async fn hand_out_slots(shared: Arc<Shared>) {
    loop {
        shared.slots.freed().await;
        loop {
            let turns = shared.slots.next(BATCH);
            let last = turns.len() < BATCH;
            start(&shared, turns.into_iter().map(|(job, slot)| Started { job, slot }).collect());
            if last {
                break;
            }
        }
    }
}

/// Reads payloads, a batch at a time. Must be run by one task only.
///
/// The turn is decided when a reader is free, not before. So jobs with small payloads never wait
/// behind a queue of large ones that were granted earlier.
pub(crate) async fn read_payloads(shared: Arc<Shared>) {
    let most = kib(shared.options.payload_batch_bytes);
    loop {
        shared.payloads.freed().await;
        loop {
            // Never closed.
            let Ok(reader) = Arc::clone(&shared.payload_reads).acquire_owned().await else {
                return;
            };
            let batch = shared.payloads.batch(most);
            if batch.is_empty() {
                break;
            }
            fetch(&shared, batch, reader);
        }
    }
}

/// Gives back the waiting jobs, and those that arrive later. Leaves all but the first ones to their
/// leases, because the reports of requests that end now must not wait behind theirs.
pub(crate) fn close(shared: &Arc<Shared>) {
    let started = shared.payloads.close().into_iter().map(|started| started.job);
    let mut jobs = started.chain(shared.slots.close());
    for job in jobs.by_ref().take(GIVEN_BACK) {
        shared.report(job, Outcome::Held(HoldReason::Released));
    }
    shared.leases.forget(jobs.map(|job| job.key()));
}

/// Drops the waiting jobs that this worker has lost. A job that is being sent continues, and its
/// late success still counts.
pub(crate) fn let_go(shared: &Shared, lost: &HashSet<Key>) {
    let started = shared.payloads.remove(|started| lost.contains(&started.job.key()));
    let waiting = shared.slots.remove(|job| lost.contains(&job.key()));
    let keys: Vec<Key> = waiting
        .iter()
        .map(HeldJob::key)
        .chain(started.iter().map(|started| started.job.key()))
        .collect();
    if !keys.is_empty() {
        tracing::warn!(
            jobs = keys.len(),
            "jobs that waited for their turn are not this worker's any more"
        );
        shared.leases.forget(keys);
    }
}

/// Gives back jobs that wait for endpoints that were paused or deleted in the meantime. Their turn
/// would have the same result, but behind a job that hangs it may be hours away, and until then
/// they take room in the queue and in memory. Must be run by one task only.
pub(crate) async fn give_gated_back(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(GATES).await;
        for endpoint in shared.slots.endpoints() {
            let reason = match shared.lookup.endpoint(endpoint).await {
                Ok(None) => HoldReason::EndpointDeleted,
                Ok(Some(entry)) if entry.endpoint.spec.state == EndpointState::Paused => {
                    HoldReason::EndpointPaused
                }
                // The state is unknown now, or the endpoint is open.
                Ok(Some(_)) | Err(_) => continue,
            };
            for job in shared.slots.remove_of(endpoint) {
                shared.report(job, Outcome::Held(reason));
            }
        }
    }
}

fn start(shared: &Arc<Shared>, jobs: Vec<Started>) {
    for started in jobs {
        let Some(bytes) = started.job.missing_payload() else {
            sender::spawn(shared, started);
            continue;
        };
        if let Err(started) = shared.payloads.line_up(started.job.recipient(), kib(bytes), started)
        {
            shared.report(started.job, Outcome::Held(HoldReason::Released));
        }
    }
}

/// Payload bytes are counted in KiB.
fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).max(1)
}

/// Reads the payloads of a batch, and sends its jobs.
fn fetch(shared: &Arc<Shared>, batch: Vec<Fetchable>, reader: OwnedSemaphorePermit) {
    let shared = Arc::clone(shared);
    shared.tasks.clone().spawn(async move {
        let keys = batch.iter().map(|(started, _)| started.job.key()).collect();
        shared.with_jobs(keys, Box::pin(fetch_batch(&shared, batch, reader))).await;
    });
}

async fn fetch_batch(shared: &Arc<Shared>, batch: Vec<Fetchable>, reader: OwnedSemaphorePermit) {
    let events: Vec<_> = batch.iter().map(|(started, _)| started.job.job.event.id).collect();
    let read = persist(shared, "payloads cannot be read", || shared.lookup.payloads(&events));
    let read = shared.shutdown.run_until_cancelled(read).await.flatten();
    drop(reader);
    let Some(payloads) = read else {
        for (started, _) in batch {
            shared.report(started.job, Outcome::Held(HoldReason::Released));
        }
        return;
    };
    for ((Started { mut job, slot }, share), payload) in batch.into_iter().zip(payloads) {
        match payload {
            Some(bytes) => {
                job.payload = Some(Payload { bytes, _share: Some(share) });
                sender::spawn(shared, Started { job, slot });
            }
            None => {
                tracing::error!(event = %job.job.event.id, delivery = %job.job.delivery,
                    "a payload is gone; nothing is sent");
                shared.report(job, Outcome::Held(HoldReason::Stale));
            }
        }
    }
}
