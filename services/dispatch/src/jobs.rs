//! Makes jobs, which describe a request without secrets.

use std::sync::Arc;

use bytes::Bytes;
use outrider_model::{
    Job, JobEvent, JobPayload, OrganizationId, PendingDelivery, Recipient, Timestamp,
};
use outrider_queue::NewJob;
use outrider_store::ClaimedJob;

/// Returns the payload of a job, or only its size if it is too large.
pub fn payload(payload: &Bytes, inline_bytes: usize) -> JobPayload {
    if payload.len() <= inline_bytes {
        JobPayload::Inline(payload.clone())
    } else {
        JobPayload::Reference { size: u32::try_from(payload.len()).unwrap_or(u32::MAX) }
    }
}

/// The data of an endpoint that its jobs need.
#[derive(Debug, Clone, Copy)]
pub struct JobEndpoint {
    /// The organization of its project.
    pub organization: OrganizationId,
    /// How many of its jobs the queue takes.
    pub limit: u32,
}

/// Makes a job for a delivery whose row has an epoch. `None` if it has none.
pub fn job(
    delivery: &PendingDelivery,
    event: &Arc<JobEvent>,
    endpoint: JobEndpoint,
    now: Timestamp,
) -> Option<NewJob> {
    let epoch = delivery.queued_epoch?;
    let JobEndpoint { organization, limit } = endpoint;
    let job = Job {
        delivery: delivery.id,
        recipient: Recipient {
            organization,
            project: delivery.project,
            endpoint: delivery.endpoint,
        },
        attempt: delivery.attempt,
        generation: delivery.generation,
        epoch,
        queued_at: now,
        due_at: Some(delivery.due_at),
        event: Arc::clone(event),
    };
    Some(NewJob { job: Arc::new(job), endpoint_limit: limit })
}

/// Makes a job for a delivery that the feeder claimed.
pub fn claimed(claimed: ClaimedJob, endpoint: JobEndpoint, now: Timestamp) -> Option<NewJob> {
    let payload = match claimed.payload {
        Some(payload) => JobPayload::Inline(payload),
        None => JobPayload::Reference { size: claimed.payload_size },
    };
    let event = JobEvent {
        id: claimed.delivery.event,
        event_type: claimed.event_type,
        content_type: claimed.content_type,
        headers: claimed.headers,
        ordering_key: claimed.ordering_key,
        payload,
        trace: claimed.trace,
    };
    job(&claimed.delivery, &Arc::new(event), endpoint, now)
}
