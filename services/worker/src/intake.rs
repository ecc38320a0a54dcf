//! From what the queue hands out to what is to be sent: what is in hand already, of the past or unusable stops here, and
//! payloads that jobs name by reference are fetched.

use std::{future::Future, sync::Arc};

use outrider_model::Result;
use outrider_proto::internal::HoldReason;
use outrider_queue::{LeasedJob, Receipt};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use crate::{
    backoff::Backoff,
    job::{self, HeldJob, Ids, Key, Outcome, Payload},
    leases::Taken,
    measure,
    reader::Room,
    reporter::Report,
    sender,
    worker::Shared,
};

/// A job in hand that is not ready to be sent.
struct Unready {
    job: HeldJob,
    /// It may be of the past.
    doubtful: bool,
}

/// Takes jobs in hand and has them sent. Does not wait for anything.
pub(crate) fn accept(shared: &Arc<Shared>, jobs: Vec<LeasedJob>, mut room: Room, read_at: Instant) {
    let now = shared.lookup.now();
    let oldest = now.minus(shared.options.lease);
    let mut unready = Vec::new();
    for leased in jobs {
        let Some((slot, place)) = room.next() else {
            tracing::error!("the queue handed out more jobs than were asked for; the rest is left to its leases");
            break;
        };
        let doubtful = !leased.first || job::queued_at(&leased.job) < oldest;
        let Some(mut job) = take_in_hand(shared, leased, place, read_at) else { continue };
        job.slot = Some(slot);
        measure::read(now, job::queued_at(&job.job));
        if doubtful || job.missing_payload().is_some() {
            unready.push(Unready { job, doubtful });
        } else {
            sender::spawn(shared, job);
        }
    }
    if !unready.is_empty() {
        let shared = Arc::clone(shared);
        shared.tasks.clone().spawn(async move {
            let keys = unready.iter().map(|unready| unready.job.key()).collect();
            shared.with_jobs(keys, make_ready(&shared, unready)).await;
        });
    }
}

/// The job, unless it is unusable or its attempt is in hand.
fn take_in_hand(shared: &Shared, leased: LeasedJob, place: OwnedSemaphorePermit, read_at: Instant) -> Option<HeldJob> {
    let LeasedJob { job, receipt, .. } = leased;
    let Some(ids) = Ids::of(&job) else {
        // Nothing can be reported without ids.
        tracing::error!(shard = receipt.shard, entry = receipt.entry, "a job without proper ids is left in the queue");
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
            Some(HeldJob { job, ids, read_at, payload, slot: None, place })
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
fn free(shared: &Shared, job: &outrider_proto::internal::Job, receipt: Receipt, place: OwnedSemaphorePermit) {
    let report = job::report(job, receipt, Outcome::Held(HoldReason::Stale));
    shared.send(Report { key: None, report, place });
}

async fn make_ready(shared: &Arc<Shared>, unready: Vec<Unready>) {
    let (doubtful, sure): (Vec<_>, Vec<_>) = unready.into_iter().partition(|unready| unready.doubtful);
    let mut jobs: Vec<HeldJob> = sure.into_iter().map(|unready| unready.job).collect();
    jobs.extend(still_current(shared, doubtful.into_iter().map(|unready| unready.job).collect()).await);
    let unit = PayloadUnits::of(shared);
    let mut chunk = Vec::new();
    let mut size = 0;
    for job in jobs {
        // A job of a slow endpoint may wait long: it fetches its payload when its turn comes.
        let Some(bytes) = job.missing_payload().filter(|_| !shared.slow.contains(job.ids.endpoint)) else {
            sender::spawn(shared, job);
            continue;
        };
        let units = unit.needed(bytes);
        if !chunk.is_empty() && size + units > unit.per_batch {
            spawn_all(shared, fetch_payloads(shared, std::mem::take(&mut chunk)).await);
            size = 0;
        }
        size += units;
        chunk.push(job);
    }
    if !chunk.is_empty() {
        spawn_all(shared, fetch_payloads(shared, chunk).await);
    }
}

fn spawn_all(shared: &Arc<Shared>, jobs: Vec<HeldJob>) {
    for job in jobs {
        sender::spawn(shared, job);
    }
}

/// Those of the jobs that the database still names; the others are reported as stale.
pub(crate) async fn still_current(shared: &Shared, jobs: Vec<HeldJob>) -> Vec<HeldJob> {
    if jobs.is_empty() {
        return jobs;
    }
    let questions: Vec<_> = jobs.iter().map(HeldJob::question).collect();
    let Some(answers) = persist(shared, "jobs cannot be checked", || shared.lookup.current(&questions)).await else {
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

/// Payload room is counted in KiB, because a semaphore counts in u32.
struct PayloadUnits {
    total: usize,
    per_batch: usize,
}

impl PayloadUnits {
    fn of(shared: &Shared) -> Self {
        let total = shared.options.payload_units();
        Self { total, per_batch: shared.options.payload_batch_bytes.div_ceil(1024).min(total) }
    }

    fn needed(&self, bytes: usize) -> usize {
        bytes.div_ceil(1024).clamp(1, self.total)
    }
}

/// The jobs with their payloads, once there is room for them. `jobs` is one job, or fits a batch.
pub(crate) async fn fetch_payloads(shared: &Shared, jobs: Vec<HeldJob>) -> Vec<HeldJob> {
    let unit = PayloadUnits::of(shared);
    let units: Vec<usize> = jobs.iter().map(|job| unit.needed(job.missing_payload().unwrap_or(0))).collect();
    let all = u32::try_from(units.iter().sum::<usize>()).unwrap_or(u32::MAX);
    let events: Vec<_> = jobs.iter().map(|job| job.ids.event).collect();
    let fetched = async {
        let room = Arc::clone(&shared.payload_room).acquire_many_owned(all).await.ok()?;
        let payloads = persist(shared, "payloads cannot be read", || shared.lookup.payloads(&events)).await?;
        Some((room, payloads))
    };
    let Some((mut room, payloads)) = shared.shutdown.run_until_cancelled(fetched).await.flatten() else {
        release(shared, jobs);
        return Vec::new();
    };
    let mut ready = Vec::with_capacity(jobs.len());
    for ((mut job, payload), units) in jobs.into_iter().zip(payloads).zip(units) {
        match payload {
            Some(bytes) => {
                job.payload = Some(Payload { bytes, _room: room.split(units) });
                ready.push(job);
            }
            None => {
                tracing::error!(event = %job.ids.event, delivery = %job.ids.delivery, "a payload is gone; nothing is sent");
                shared.report(job, Outcome::Held(HoldReason::Stale));
            }
        }
    }
    ready
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
