//! A job in hand: from the moment it is read until its report is settled.

use std::sync::Arc;

use bytes::Bytes;
use outrider_model::{DeliveryId, Job, JobPayload, Recipient};
use outrider_telemetry::TraceContext;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use crate::scheduler::Grant;

/// What is done at most once at a time: an attempt of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) delivery: DeliveryId,
    pub(crate) attempt: u32,
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
    pub(crate) read_at: Instant,
    /// None until it is known: the job names it by reference.
    pub(crate) payload: Option<Payload>,
    /// Its place in the bounded number of jobs in hand.
    pub(crate) place: OwnedSemaphorePermit,
}

impl HeldJob {
    pub(crate) fn key(&self) -> Key {
        Key { delivery: self.job.delivery, attempt: self.job.attempt }
    }

    /// Who the worker's resources are shared between.
    pub(crate) fn recipient(&self) -> Recipient {
        self.job.recipient
    }

    /// As `Lookup::current` asks for it.
    pub(crate) fn question(&self) -> (DeliveryId, u32, u32) {
        (self.job.delivery, self.job.attempt, self.job.generation)
    }

    /// The size of a payload that is still to be fetched.
    pub(crate) fn missing_payload(&self) -> Option<usize> {
        match self.job.event.payload {
            JobPayload::Reference { size } if self.payload.is_none() => {
                Some(usize::try_from(size).unwrap_or(usize::MAX))
            }
            _ => None,
        }
    }
}

/// The payload, when the job carries it.
pub(crate) fn inline_payload(job: &Job) -> Option<Payload> {
    match &job.event.payload {
        JobPayload::Inline(bytes) => Some(Payload { bytes: bytes.clone(), _share: None }),
        JobPayload::Reference { .. } => None,
    }
}

/// Where its event stands in a trace.
pub(crate) fn trace(job: &Job) -> Option<TraceContext> {
    let trace = job.event.trace.as_ref()?;
    TraceContext::parse(&trace.parent, &trace.state)
}
