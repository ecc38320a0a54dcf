//! Jobs: the description of a request, without secrets.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use outrider_model::{OrganizationId, PendingDelivery, Recipient, Timestamp, Trace};
use outrider_proto::internal::{Job, job::Body};
use outrider_queue::NewJob;
use outrider_store::ClaimedJob;

/// What a job needs of an event.
pub struct JobEvent<'a> {
    pub event_type: &'a str,
    pub content_type: &'a str,
    pub headers: &'a BTreeMap<String, String>,
    pub ordering_key: &'a str,
    pub payload: Body,
    pub trace: Option<&'a Trace>,
}

/// The body of a job: the payload, or where it is too large, its size.
pub fn body(payload: &Bytes, inline_bytes: usize) -> Body {
    if payload.len() <= inline_bytes {
        Body::Payload(payload.clone())
    } else {
        Body::PayloadReference(u32::try_from(payload.len()).unwrap_or(u32::MAX))
    }
}

/// What a job needs of the endpoint that it goes to.
#[derive(Debug, Clone, Copy)]
pub struct JobEndpoint {
    /// Of its project.
    pub organization: OrganizationId,
    /// Jobs of it that the queue takes.
    pub limit: u32,
}

/// A job for a delivery that bears an epoch; none when it bears none.
pub fn job(
    delivery: &PendingDelivery,
    event: JobEvent<'_>,
    endpoint: JobEndpoint,
    now: Timestamp,
) -> Option<NewJob> {
    let epoch = delivery.queued_epoch?;
    let job = Job {
        version: 1,
        delivery_id: Bytes::copy_from_slice(delivery.id.as_bytes()),
        event_id: Bytes::copy_from_slice(delivery.event.as_bytes()),
        endpoint_id: Bytes::copy_from_slice(delivery.endpoint.as_bytes()),
        project_id: Bytes::copy_from_slice(delivery.project.as_bytes()),
        attempt: delivery.attempt,
        generation: delivery.generation,
        epoch,
        queued_at: now.0,
        event_type: event.event_type.to_owned(),
        content_type: event.content_type.to_owned(),
        headers: event.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        body: Some(event.payload),
        traceparent: event.trace.map(|trace| trace.parent.clone()).unwrap_or_default(),
        tracestate: event.trace.map(|trace| trace.state.clone()).unwrap_or_default(),
        due_at: delivery.due_at.0,
        organization_id: Bytes::copy_from_slice(endpoint.organization.as_bytes()),
        ordering_key: event.ordering_key.to_owned(),
    };
    let JobEndpoint { organization, limit } = endpoint;
    let recipient =
        Recipient { organization, project: delivery.project, endpoint: delivery.endpoint };
    Some(NewJob { job: Arc::new(job), delivery: delivery.id, recipient, endpoint_limit: limit })
}

/// A job for a delivery that the feeder claimed.
pub fn claimed(claimed: &ClaimedJob, endpoint: JobEndpoint, now: Timestamp) -> Option<NewJob> {
    let payload = match &claimed.payload {
        Some(payload) => Body::Payload(payload.clone()),
        None => Body::PayloadReference(claimed.payload_size),
    };
    let event = JobEvent {
        event_type: &claimed.event_type,
        content_type: &claimed.content_type,
        headers: &claimed.headers,
        ordering_key: claimed.ordering_key.as_deref().unwrap_or_default(),
        payload,
        trace: claimed.trace.as_ref(),
    };
    job(&claimed.delivery, event, endpoint, now)
}
