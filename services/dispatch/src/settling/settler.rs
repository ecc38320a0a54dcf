//! Settling: turns workers' reports into the next states of their deliveries, in shared commits.

use std::sync::Arc;

use async_trait::async_trait;
use outrider_failpoints::{Point, pass};
use outrider_model::{
    Attempt, Error, JobReport, JobResult, ReportedJob, Result, RetryPolicy, Verdict, delivery,
};
use outrider_queue::Done;
use outrider_rpc::Settlement;
use outrider_store::{LedgerError, LogKind, Settled};
use outrider_telemetry::{
    Hop,
    catalog::dispatch::{SETTLE_REPORTS, SETTLE_SECONDS},
};

use super::finisher::Finisher;
use crate::{
    batcher::{BatchLimits, Batcher, Commit},
    fair_queue::Owner,
    measure,
    options::Options,
    shared::Shared,
    trace,
};

/// Receives reports from workers.
pub struct Settler {
    shared: Shared,
    finisher: Finisher,
    batcher: Batcher<(Settled, Hop), ()>,
    policy: RetryPolicy,
}

impl Settler {
    pub fn start(shared: Shared, finisher: Finisher) -> Self {
        let Options { settle_lanes: lanes, settle_batch: batch, settle_queue: queue, .. } =
            *shared.options;
        let limits = BatchLimits { lanes, reserved: 0, batch, queue };
        let commit: Commit<(Settled, Hop), ()> = {
            let shared = shared.clone();
            Arc::new(move |batch| Box::pin(commit(shared.clone(), batch)))
        };
        let policy = RetryPolicy::new(shared.options.retry_schedule.clone());
        Self { batcher: Batcher::start(limits, |_| 1, commit), shared, finisher, policy }
    }

    /// Returns the outcome to write, if the report changes anything, and the job to finish.
    fn judge(&self, report: JobReport) -> (Option<(Settled, Hop)>, Done) {
        let hop = trace::settling(&report);
        let now = self.shared.store.clock().now();
        let JobReport { job, receipt, result, .. } = report;
        let (verdict, record) = match result {
            JobResult::Attempted(result) => {
                let (outcome, policy) = (result.outcome, &self.policy);
                let verdict =
                    delivery::judge_attempt(outcome, job.attempt, now, policy, rand::random());
                (verdict, Some(job.record(result)))
            }
            JobResult::Held(reason) => (delivery::judge_hold(reason), None),
        };
        let ReportedJob { delivery, endpoint, attempt, generation, .. } = job;
        let settled = Settled { delivery, attempt, generation, verdict, record, at: now };
        let settled = (verdict != Verdict::Ignore).then_some((settled, hop));
        (settled, Done { receipt, delivery, endpoint, generation })
    }
}

#[async_trait]
impl Settlement for Settler {
    async fn settle(&self, reports: Vec<JobReport>) -> Result<()> {
        let mut settled = Vec::with_capacity(reports.len());
        let mut done = Vec::with_capacity(reports.len());
        for report in reports {
            let (judged, job) = self.judge(report);
            settled.extend(judged);
            done.push(job);
        }
        if !settled.is_empty() {
            // A worker's batch belongs to many organizations.
            self.batcher.commit(Owner::ANYBODY, settled).await?;
        }
        self.finisher.submit(done);
        Ok(())
    }
}

async fn commit(shared: Shared, batch: Vec<(Settled, Hop)>) -> Result<Vec<()>> {
    let (batch, hops): (Vec<Settled>, Vec<Hop>) = batch.into_iter().unzip();
    pass(Point::BeforeSettle);
    let outcome = write(&shared, batch).await;
    pass(Point::AfterSettle);
    for hop in hops {
        hop.set(
            "outrider.commit.reports",
            outcome.as_ref().map_or(0, |all| i64::try_from(all.len()).unwrap_or(i64::MAX)),
        );
        if let Err(error) = &outcome {
            hop.fail(error.reason.as_str());
        }
    }
    outcome
}

async fn write(shared: &Shared, batch: Vec<Settled>) -> Result<Vec<()>> {
    SETTLE_REPORTS.observe(batch.len() as f64);
    let timed = SETTLE_SECONDS.start_timer();
    let written = shared.ledger.settle(&batch).await;
    timed.observe_duration();
    match written {
        Ok(applied) => {
            measure::settled(&batch, &applied);
            // The project of a held delivery is not known here. Tails find it at their next poll.
            let attempts = batch.iter().filter_map(|settled| settled.record.as_ref());
            learn(shared, attempts.clone()).await;
            shared.tails.committed(LogKind::Deliveries, attempts.map(|attempt| attempt.project));
            Ok(vec![(); batch.len()])
        }
        Err(LedgerError::Unavailable(why)) => {
            tracing::warn!(%why, reports = batch.len(), "attempts were not committed; workers send \
                them again");
            Err(Error::unavailable("the database does not answer"))
        }
        Err(LedgerError::Data(_)) => settle_apart(shared, batch).await,
    }
}

/// Reduces the window in the queue of endpoints that do not answer.
async fn learn(shared: &Shared, attempts: impl Iterator<Item = &Attempt>) {
    let now = shared.store.clock().now();
    for attempt in attempts.filter(|attempt| shared.windows.cares(attempt)) {
        // Nothing is recorded for an endpoint that is gone or cannot be read now.
        if let Ok(Some(entry)) = shared.directory.endpoint(attempt.endpoint).await {
            shared.windows.learn(attempt, entry.endpoint.spec.limits.max_in_flight, now);
        }
    }
}

/// The database refuses the data of some report. Writes each report alone, and that one without the
/// endpoint's response.
async fn settle_apart(shared: &Shared, batch: Vec<Settled>) -> Result<Vec<()>> {
    let count = batch.len();
    for mut settled in batch {
        let mut outcome = shared.ledger.settle(std::slice::from_ref(&settled)).await;
        if let (Err(LedgerError::Data(why)), Some(record)) = (&outcome, &mut settled.record) {
            tracing::error!(%why, delivery_id = %settled.delivery,
                "the database refuses an answer; it is dropped from the attempt");
            record.response_headers.clear();
            record.response_body.clear();
            record.error_message = Some(
                "the answer could not be stored: the database refuses what it holds".to_owned(),
            );
            outcome = shared.ledger.settle(std::slice::from_ref(&settled)).await;
        }
        let applied = outcome.map_err(|why| {
            tracing::warn!(%why, delivery_id = %settled.delivery,
                "an attempt was not committed; workers send it again");
            Error::unavailable("the database does not answer")
        })?;
        measure::settled(std::slice::from_ref(&settled), &applied);
    }
    Ok(vec![(); count])
}
