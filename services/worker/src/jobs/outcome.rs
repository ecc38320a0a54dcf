//! The outcome of a job, and the report about it.

use outrider_model::{AttemptResult, HoldReason, Job, JobReport, JobResult, Receipt, ReportedJob};
use outrider_telemetry::TraceContext;
use tokio::sync::OwnedSemaphorePermit;

use super::held::Key;
use crate::scheduler::Grant;

/// The outcome of a job.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// A request was made, or tried. Contains the span, if one was recorded.
    Attempted(AttemptResult, Option<TraceContext>),
    /// Nothing was sent.
    Held(HoldReason),
}

/// Builds the report about a job.
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

/// A report that is not settled, with the place that its job keeps until then.
pub(crate) struct UnsettledReport {
    /// `None` if the job was not taken in hand. The report then only frees its place in the queue.
    pub(crate) key: Option<Key>,
    pub(crate) report: JobReport,
    pub(crate) place: OwnedSemaphorePermit,
    /// The share of the room for responses that a large response takes.
    pub(crate) answer: Option<Grant<()>>,
}
