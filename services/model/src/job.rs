//! Jobs: what a worker gets to make one attempt, and what it reports.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    Attempt, AttemptId, AttemptOutcome, DeliveryId, EndpointId, EventId, HoldReason, ProjectId,
    Recipient, Timestamp, Trace,
};

/// A delivery that is due: the description of a request, without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub delivery: DeliveryId,
    /// The endpoint, with the project and organization that the resources are shared between.
    pub recipient: Recipient,
    /// Number of the attempt that this job is for. The first is 1.
    pub attempt: u32,
    /// How often the delivery was queued. A job of a lower generation is dropped.
    pub generation: u32,
    /// Epoch of the queue shard when the job was queued. A job of another epoch is dropped.
    pub epoch: i64,
    pub queued_at: Timestamp,
    /// When the attempt was due. Absent in jobs of a version that did not record it.
    pub due_at: Option<Timestamp>,
    /// Shared by all jobs of the event.
    pub event: Arc<JobEvent>,
}

impl Job {
    /// Bytes of the headers, and of the payload if the job carries it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let headers: usize =
            self.event.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        match &self.event.payload {
            JobPayload::Inline(bytes) => headers + bytes.len(),
            JobPayload::Reference { .. } => headers,
        }
    }
}

/// The parts of an event that a request needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEvent {
    pub id: EventId,
    pub event_type: String,
    pub content_type: String,
    pub headers: BTreeMap<String, String>,
    pub ordering_key: Option<String>,
    pub payload: JobPayload,
    pub trace: Option<Trace>,
}

/// The payload of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobPayload {
    /// The job carries the payload.
    Inline(Bytes),
    /// The payload is in the database, and has so many bytes.
    Reference { size: u32 },
}

/// The position of a job in the queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Receipt {
    pub shard: u32,
    /// The entry, as the backend names it.
    pub entry: String,
    pub epoch: i64,
}

/// What a worker did with a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobReport {
    pub job: ReportedJob,
    /// Where dispatch acknowledges the job.
    pub receipt: Receipt,
    pub result: JobResult,
    /// The span of the attempt, as the header `traceparent` of W3C Trace Context.
    pub trace_parent: Option<String>,
}

/// The job that a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportedJob {
    pub delivery: DeliveryId,
    pub event: EventId,
    pub endpoint: EndpointId,
    pub project: ProjectId,
    pub attempt: u32,
    pub generation: u32,
}

/// Whether a request was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobResult {
    /// A request was made, or tried.
    Attempted(AttemptResult),
    /// Nothing was sent.
    Held(HoldReason),
}

/// The result of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptResult {
    pub outcome: AttemptOutcome,
    /// Absent without a response.
    pub status_code: Option<u16>,
    pub started_at: Timestamp,
    pub duration: Duration,
    /// Limited in number and size.
    pub response_headers: Vec<(String, String)>,
    /// The beginning of the body, limited in size.
    pub response_body: Bytes,
    /// Whether the body was longer, did not arrive completely, or found no room in the worker.
    pub response_truncated: bool,
    pub error_message: Option<String>,
    /// Whether the request was sent once more, after a reused connection had ended without a
    /// response.
    pub resent: bool,
}

/// Upper bound of the bytes that a report takes without its response, error and receipt.
const REPORT_BYTES: usize = 256;
/// The same for each header, without its name and value.
const HEADER_BYTES: usize = 24;

impl JobReport {
    /// Upper bound of the size of the report on the wire, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        let trace = self.trace_parent.as_ref().map_or(0, String::len);
        let fixed = REPORT_BYTES + self.receipt.entry.len() + trace;
        let JobResult::Attempted(result) = &self.result else { return fixed };
        let headers = result.response_headers.iter();
        let headers: usize =
            headers.map(|(name, value)| HEADER_BYTES + name.len() + value.len()).sum();
        let error = result.error_message.as_ref().map_or(0, String::len);
        fixed + headers + result.response_body.len() + error
    }
}

impl ReportedJob {
    /// Returns the attempt with this result, to be recorded.
    #[must_use]
    pub fn record(&self, result: AttemptResult) -> Attempt {
        let AttemptResult { started_at, .. } = result;
        Attempt {
            id: AttemptId::derive(self.delivery, self.attempt, self.generation, started_at),
            delivery: self.delivery,
            event: self.event,
            endpoint: self.endpoint,
            project: self.project,
            number: self.attempt,
            outcome: result.outcome,
            status_code: result.status_code,
            started_at,
            duration: result.duration,
            response_headers: result.response_headers,
            response_body: result.response_body.into(),
            response_truncated: result.response_truncated,
            error_message: result.error_message,
            resent: result.resent,
        }
    }
}
