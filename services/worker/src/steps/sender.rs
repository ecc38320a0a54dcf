//! Sends a job whose turn has come: looks up its endpoint, makes the exchange, and reports it.

use std::{sync::Arc, time::Duration};

use outrider_failpoints::{Point, pass};
use outrider_model::HoldReason;
use outrider_model::endpoint::EndpointState;
use tokio::time::Instant;

use super::{
    asking::{persist, still_current},
    attempt::{Sent, attempt},
};
use crate::{
    backoff::Backoff,
    jobs::{HeldJob, Outcome, Started},
    shared::Shared,
};

/// Sends and reports a job in a task of its own.
pub(crate) fn spawn(shared: &Arc<Shared>, started: Started) {
    let shared = Arc::clone(shared);
    shared.tasks.clone().spawn(async move {
        shared.with_jobs(vec![started.job.key()], Box::pin(perform(&shared, started))).await;
    });
}

async fn perform(shared: &Shared, started: Started) {
    let Started { job, mut slot } = started;
    let Some(job) = surely_ours(shared, job).await else { return };
    pass(Point::BeforeSend);
    let Sent { outcome, news } = send(shared, &job).await;
    pass(Point::AfterSend);
    if let Some(news) = news {
        slot.heard(news);
    }
    drop(slot);
    shared.report(job, outcome);
}

/// Checks with the database if the lease may have run out in the meantime, because another worker
/// may then have sent the job.
async fn surely_ours(shared: &Shared, job: HeldJob) -> Option<HeldJob> {
    if shared.leases.lost(job.key()) {
        // The worker that has it now sends it.
        shared.leases.forget([job.key()]);
        return None;
    }
    if shared.leases.sure(job.read_at) {
        Some(job)
    } else {
        still_current(shared, vec![job]).await.pop()
    }
}

/// Sends the job to its endpoint as it is now. An unreachable egress does not count as an attempt.
/// It is waited for within bounds.
async fn send(shared: &Shared, job: &HeldJob) -> Sent {
    let patience = Instant::now() + shared.options.egress_patience;
    let mut backoff = Backoff::between(Duration::from_millis(100), Duration::from_secs(1));
    loop {
        let asked = persist(shared, "endpoints cannot be looked up", || {
            shared.lookup.endpoint(job.job.recipient.endpoint)
        });
        let held = match asked.await {
            None => HoldReason::Released,
            Some(None) => HoldReason::EndpointDeleted,
            Some(Some(entry)) if entry.endpoint.spec.state == EndpointState::Paused => {
                HoldReason::EndpointPaused
            }
            Some(Some(_)) if shared.shutdown.is_cancelled() => HoldReason::Released,
            Some(Some(entry)) => match attempt(shared, job, &entry).await {
                Some(sent) => return sent,
                None => {
                    let wait = backoff.step();
                    let sleep = tokio::time::sleep(wait);
                    if Instant::now() + wait < patience
                        && shared.shutdown.run_until_cancelled(sleep).await.is_some()
                    {
                        continue;
                    }
                    if shared.complaints.due() {
                        tracing::warn!(delivery = %job.job.delivery,
                            "the egress is unavailable; jobs are given back");
                    }
                    HoldReason::Released
                }
            },
        };
        return Sent { outcome: Outcome::Held(held), news: None };
    }
}
