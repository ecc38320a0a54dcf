//! A job in hand: from the moment it is read until its report is settled.

use std::sync::Arc;

use bytes::Bytes;
use outrider_model::{
    DeliveryId, EndpointId, EventId, OrganizationId, ProjectId, Recipient, Timestamp,
};
use outrider_proto::internal::{Job, job::Body};
use outrider_telemetry::TraceContext;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use crate::scheduler::Grant;

/// The newest layout of jobs that this worker knows.
const JOB_VERSION: u32 = 1;

/// What is done at most once at a time: an attempt of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) delivery: DeliveryId,
    pub(crate) attempt: u32,
}

/// The ids of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) delivery: DeliveryId,
    pub(crate) event: EventId,
    pub(crate) endpoint: EndpointId,
    pub(crate) project: ProjectId,
    pub(crate) organization: OrganizationId,
}

impl Ids {
    /// None when one of them does not have 16 bytes.
    pub(crate) fn of(job: &Job) -> Option<Self> {
        let project = ProjectId::from_bytes(&job.project_id)?;
        Some(Self {
            // A job of a version that did not name it: its project then counts as one of its own.
            organization: OrganizationId::from_bytes(&job.organization_id)
                .unwrap_or(OrganizationId(project.0)),
            delivery: DeliveryId::from_bytes(&job.delivery_id)?,
            event: EventId::from_bytes(&job.event_id)?,
            endpoint: EndpointId::from_bytes(&job.endpoint_id)?,
            project,
        })
    }
}

/// The bytes of a payload, and the share of all payloads that they take when they are not part of
/// the job.
pub(crate) struct Payload {
    pub(crate) bytes: Bytes,
    pub(crate) _share: Option<Grant<Started>>,
}

/// A job that has its slot: the right to send.
pub(crate) struct Started {
    pub(crate) job: HeldJob,
    pub(crate) slot: Grant<HeldJob>,
}

/// A job in hand.
pub(crate) struct HeldJob {
    pub(crate) job: Arc<Job>,
    pub(crate) ids: Ids,
    pub(crate) read_at: Instant,
    /// None until it is known: the job names it by reference.
    pub(crate) payload: Option<Payload>,
    /// Its place in the bounded number of jobs in hand.
    pub(crate) place: OwnedSemaphorePermit,
}

impl HeldJob {
    pub(crate) fn key(&self) -> Key {
        Key { delivery: self.ids.delivery, attempt: self.job.attempt }
    }

    /// Who the worker's resources are shared between.
    pub(crate) fn recipient(&self) -> Recipient {
        let Ids { organization, project, endpoint, .. } = self.ids;
        Recipient { organization, project, endpoint }
    }

    /// As `Lookup::current` asks for it.
    pub(crate) fn question(&self) -> (DeliveryId, u32, u32) {
        (self.ids.delivery, self.job.attempt, self.job.generation)
    }

    /// The size of a payload that is still to be fetched.
    pub(crate) fn missing_payload(&self) -> Option<usize> {
        match self.job.body {
            Some(Body::PayloadReference(size)) if self.payload.is_none() => {
                Some(usize::try_from(size).unwrap_or(usize::MAX))
            }
            _ => None,
        }
    }
}

/// Why a job cannot be sent by this worker; none when it can.
pub(crate) fn unusable(job: &Job) -> Option<&'static str> {
    if job.version > JOB_VERSION {
        Some("its version is newer than this worker")
    } else if job.body.is_none() {
        Some("it has no body")
    } else {
        None
    }
}

/// The payload, when the job carries it.
pub(crate) fn inline_payload(job: &Job) -> Option<Payload> {
    match &job.body {
        Some(Body::Payload(bytes)) => Some(Payload { bytes: bytes.clone(), _share: None }),
        _ => None,
    }
}

/// Where its event stands in a trace.
pub(crate) fn trace(job: &Job) -> Option<TraceContext> {
    if job.traceparent.is_empty() {
        None
    } else {
        TraceContext::parse(&job.traceparent, &job.tracestate)
    }
}

/// When it was queued.
pub(crate) fn queued_at(job: &Job) -> Timestamp {
    Timestamp(job.queued_at)
}
