//! Jobs in hand. A job is in hand from the moment it is read until its report is settled.

use std::sync::Arc;

use bytes::Bytes;
use outrider_model::{DeliveryId, Job, JobPayload, Recipient};
use outrider_telemetry::TraceContext;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use crate::scheduler::Grant;

/// An attempt of a delivery, which is made at most once at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) delivery: DeliveryId,
    pub(crate) attempt: u32,
}

/// A payload, and the share of payload bytes that it takes if it did not travel with its job.
pub(crate) struct Payload {
    pub(crate) bytes: Bytes,
    pub(crate) _share: Option<Grant<Started>>,
}

/// A job with its slot, which is the right to send it.
pub(crate) struct Started {
    pub(crate) job: HeldJob,
    pub(crate) slot: Grant<HeldJob>,
}

/// A job in hand.
pub(crate) struct HeldJob {
    pub(crate) job: Arc<Job>,
    pub(crate) read_at: Instant,
    /// `None` until the payload is read, if the job only refers to it.
    pub(crate) payload: Option<Payload>,
    /// The place of the job in the bounded number of jobs in hand.
    pub(crate) place: OwnedSemaphorePermit,
}

impl HeldJob {
    pub(crate) fn key(&self) -> Key {
        Key { delivery: self.job.delivery, attempt: self.job.attempt }
    }

    /// Returns the recipient, between whom the worker's resources are shared.
    pub(crate) fn recipient(&self) -> Recipient {
        self.job.recipient
    }

    /// Returns the arguments for `Lookup::current`.
    pub(crate) fn question(&self) -> (DeliveryId, u32, u32) {
        (self.job.delivery, self.job.attempt, self.job.generation)
    }

    /// Returns the size of the payload if it must still be read.
    pub(crate) fn missing_payload(&self) -> Option<usize> {
        match self.job.event.payload {
            JobPayload::Reference { size } if self.payload.is_none() => {
                Some(usize::try_from(size).unwrap_or(usize::MAX))
            }
            _ => None,
        }
    }
}

/// Returns the payload if the job carries it.
pub(crate) fn inline_payload(job: &Job) -> Option<Payload> {
    match &job.event.payload {
        JobPayload::Inline(bytes) => Some(Payload { bytes: bytes.clone(), _share: None }),
        JobPayload::Reference { .. } => None,
    }
}

/// Returns the position of the event in its trace.
pub(crate) fn trace(job: &Job) -> Option<TraceContext> {
    let trace = job.event.trace.as_ref()?;
    TraceContext::parse(&trace.parent, &trace.state)
}
