//! What became of a job, and the report about it.

use outrider_model::{AttemptResult, HoldReason, Job, JobReport, JobResult, Receipt, ReportedJob};
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
pub(crate) fn report(job: &Job, receipt: Receipt, outcome: Outcome) -> JobReport {
    let (result, span) = match outcome {
        Outcome::Attempted(result, span) => (JobResult::Attempted(result), span),
        Outcome::Held(reason) => (JobResult::Held(reason), None),
    };
    JobReport {
        job: ReportedJob {
            delivery: job.delivery,
            event: job.event.id,
            endpoint: job.recipient.endpoint,
            project: job.recipient.project,
            attempt: job.attempt,
            generation: job.generation,
        },
        receipt,
        result,
        trace_parent: span.map(|span| span.traceparent()),
    }
}

/// A report that is not settled, and the place in hand that its job keeps until then.
pub(crate) struct UnsettledReport {
    /// None when the job was not taken in hand: it only frees a place in the queue.
    pub(crate) key: Option<Key>,
    pub(crate) report: JobReport,
    pub(crate) place: OwnedSemaphorePermit,
    /// What a large answer takes of the room for answers.
    pub(crate) answer: Option<Grant<()>>,
}
