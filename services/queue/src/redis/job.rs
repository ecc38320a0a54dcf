//! Jobs as they are written to Redis.

use std::sync::Arc;

use bytes::Bytes;
use outrider_model::{
    DeliveryId, EndpointId, EventId, Job, JobEvent, JobPayload, OrganizationId, ProjectId,
    Recipient, Timestamp, Trace,
};
use outrider_proto::internal::{self, job::Body};

/// The newest layout that this version knows.
const VERSION: u32 = 1;

/// Converts a job to the layout in Redis.
pub(super) fn encode(job: &Job) -> internal::Job {
    let Job { delivery, recipient, event, .. } = job;
    // One allocation for all ids.
    let ids = [
        delivery.as_bytes(),
        event.id.as_bytes(),
        recipient.endpoint.as_bytes(),
        recipient.project.as_bytes(),
        recipient.organization.as_bytes(),
    ];
    let ids = Bytes::from(ids.map(|id| *id).concat());
    let id = |place: usize| ids.slice(16 * place..16 * (place + 1));
    let (traceparent, tracestate) = event
        .trace
        .as_ref()
        .map(|trace| (trace.parent.clone(), trace.state.clone()))
        .unwrap_or_default();
    internal::Job {
        version: VERSION,
        delivery_id: id(0),
        event_id: id(1),
        endpoint_id: id(2),
        project_id: id(3),
        organization_id: id(4),
        attempt: job.attempt,
        generation: job.generation,
        epoch: job.epoch,
        queued_at: job.queued_at.0,
        due_at: job.due_at.map_or(0, |at| at.0),
        event_type: event.event_type.clone(),
        content_type: event.content_type.clone(),
        headers: event.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        ordering_key: event.ordering_key.clone().unwrap_or_default(),
        body: Some(match &event.payload {
            JobPayload::Inline(bytes) => Body::Payload(bytes.clone()),
            JobPayload::Reference { size } => Body::PayloadReference(*size),
        }),
        traceparent,
        tracestate,
    }
}

/// A message in the queue.
#[derive(Debug, PartialEq)]
pub(super) enum Decoded {
    Job(Job),
    /// A job that this version cannot send, and why.
    Unusable {
        job: Unusable,
        why: &'static str,
    },
}

/// The parts of an unusable job that are needed to free its place in the queue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Unusable {
    pub(super) delivery: DeliveryId,
    pub(super) endpoint: EndpointId,
    pub(super) generation: u32,
    pub(super) epoch: i64,
}

/// Reads a job. Returns `None` if an id does not have 16 bytes.
pub(super) fn decode(job: internal::Job) -> Option<Decoded> {
    let delivery = DeliveryId::from_bytes(&job.delivery_id)?;
    let id = EventId::from_bytes(&job.event_id)?;
    let endpoint = EndpointId::from_bytes(&job.endpoint_id)?;
    let project = ProjectId::from_bytes(&job.project_id)?;
    // In a job of a version that did not record it, the project counts as an organization of its
    // own.
    let organization =
        OrganizationId::from_bytes(&job.organization_id).unwrap_or(OrganizationId(project.0));
    let unusable = |why| {
        let job = Unusable { delivery, endpoint, generation: job.generation, epoch: job.epoch };
        Some(Decoded::Unusable { job, why })
    };
    if job.version > VERSION {
        return unusable("its version is newer than this process");
    }
    let payload = match job.body {
        Some(Body::Payload(bytes)) => JobPayload::Inline(bytes),
        Some(Body::PayloadReference(size)) => JobPayload::Reference { size },
        None => return unusable("it has no body"),
    };
    let trace = Trace { parent: job.traceparent, state: job.tracestate };
    Some(Decoded::Job(Job {
        delivery,
        recipient: Recipient { organization, project, endpoint },
        attempt: job.attempt,
        generation: job.generation,
        epoch: job.epoch,
        queued_at: Timestamp(job.queued_at),
        due_at: Some(job.due_at).filter(|at| *at != 0).map(Timestamp),
        event: Arc::new(JobEvent {
            id,
            event_type: job.event_type,
            content_type: job.content_type,
            headers: job.headers.into_iter().collect(),
            ordering_key: Some(job.ordering_key).filter(|key| !key.is_empty()),
            payload,
            trace: Some(trace).filter(|trace| !trace.parent.is_empty()),
        }),
    }))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A job with a value in every field.
    pub(in super::super) fn job() -> Job {
        let at = Timestamp(1_700_000_000_000_000);
        Job {
            delivery: DeliveryId::new(at, 1),
            recipient: Recipient {
                organization: OrganizationId::new(at, 2),
                project: ProjectId::new(at, 3),
                endpoint: EndpointId::new(at, 4),
            },
            attempt: 5,
            generation: 6,
            epoch: -7,
            queued_at: at,
            due_at: Some(at),
            event: Arc::new(JobEvent {
                id: EventId::new(at, 8),
                event_type: "a.b".to_owned(),
                content_type: "text/plain".to_owned(),
                headers: [("name".to_owned(), "value".to_owned())].into(),
                ordering_key: Some("order".to_owned()),
                payload: JobPayload::Inline("payload".into()),
                trace: Some(Trace { parent: "00-a".to_owned(), state: "b=c".to_owned() }),
            }),
        }
    }

    #[test]
    fn a_job_is_read_as_it_was_written() {
        let mut bare = job();
        bare.due_at = None;
        let event = Arc::make_mut(&mut bare.event);
        event.ordering_key = None;
        event.trace = None;
        event.payload = JobPayload::Reference { size: 9 };
        for job in [job(), bare] {
            assert_eq!(decode(encode(&job)), Some(Decoded::Job(job)));
        }
    }

    #[test]
    fn jobs_of_other_versions_are_read_as_far_as_they_go() {
        let good = || encode(&job());
        for short in [
            internal::Job { delivery_id: "short".into(), ..good() },
            internal::Job { event_id: "".into(), ..good() },
            internal::Job { endpoint_id: "".into(), ..good() },
            internal::Job { project_id: "".into(), ..good() },
        ] {
            assert_eq!(decode(short), None);
        }
        for unusable in
            [internal::Job { version: 2, ..good() }, internal::Job { body: None, ..good() }]
        {
            let Some(Decoded::Unusable { job: read, .. }) = decode(unusable) else {
                panic!("it cannot be sent");
            };
            let Job { delivery, recipient, generation, epoch, .. } = job();
            let endpoint = recipient.endpoint;
            assert_eq!(read, Unusable { delivery, endpoint, generation, epoch });
        }
        let older = internal::Job { organization_id: "".into(), ..good() };
        let Some(Decoded::Job(older)) = decode(older) else { panic!("it can be sent") };
        assert_eq!(older.recipient.organization.0, older.recipient.project.0);
    }
}
