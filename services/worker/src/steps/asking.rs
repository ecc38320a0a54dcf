//! Repeats questions to the store until there is an answer.

use std::future::Future;

use outrider_model::HoldReason;
use outrider_model::Result;

use crate::{
    backoff::Backoff,
    jobs::{HeldJob, Outcome},
    shared::Shared,
};

/// Returns the jobs that the database still names. Reports the others as stale.
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

/// Asks until there is an answer. The leases are renewed in the meantime. Returns `None` at
/// shutdown.
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
