//! What became of a job, and the report about it.

use outrider_proto::internal::{
    AttemptReport, AttemptResult, HoldReason, Job, JobReceipt, attempt_report,
};
use outrider_queue::Receipt;
use outrider_telemetry::TraceContext;
use tokio::sync::OwnedSemaphorePermit;

use super::held::Key;
use crate::scheduler::Grant;

/// What became of a job.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// A request was made, or tried, in this span, if there was one.
    Attempted(AttemptResult, Option<TraceContext>),
    /// Nothing was sent.
    Held(HoldReason),
}

/// The report about a job.
pub(crate) fn report(job: &Job, receipt: Receipt, outcome: Outcome) -> AttemptReport {
    let (result, span) = match outcome {
        Outcome::Attempted(result, span) => (attempt_report::Result::Attempted(result), span),
        Outcome::Held(reason) => (attempt_report::Result::Held(reason.into()), None),
    };
    AttemptReport {
        delivery_id: job.delivery_id.clone(),
        event_id: job.event_id.clone(),
        endpoint_id: job.endpoint_id.clone(),
        project_id: job.project_id.clone(),
        attempt: job.attempt,
        generation: job.generation,
        receipt: Some(JobReceipt {
            shard: receipt.shard,
            entry: receipt.entry,
            epoch: receipt.epoch,
        }),
        result: Some(result),
        traceparent: span.map(|span| span.traceparent()).unwrap_or_default(),
    }
}

/// A report, and the place in hand that its job keeps until it is settled.
pub(crate) struct Report {
    /// None when the job was not taken in hand: it only frees a place in the queue.
    pub(crate) key: Option<Key>,
    pub(crate) report: AttemptReport,
    pub(crate) place: OwnedSemaphorePermit,
    /// What a large answer takes of the room for answers.
    pub(crate) answer: Option<Grant<()>>,
}
