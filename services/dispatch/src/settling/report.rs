//! What a worker's report says.

use std::time::Duration;

use outrider_model::{
    Attempt, AttemptId, AttemptOutcome, DeliveryId, EndpointId, EventId, HoldReason, ProjectId,
    Timestamp,
};
use outrider_proto::internal::{self, AttemptReport, AttemptResult};
use outrider_queue::{Done, Receipt};

/// The ids of a report.
pub struct ReportedJob {
    pub delivery: DeliveryId,
    event: EventId,
    endpoint: EndpointId,
    project: ProjectId,
    pub attempt: u32,
    pub generation: u32,
    pub done: Done,
}

impl ReportedJob {
    pub fn parse(report: &AttemptReport) -> Option<Self> {
        let receipt = report.receipt.as_ref()?;
        let delivery = DeliveryId::from_bytes(&report.delivery_id)?;
        let endpoint = EndpointId::from_bytes(&report.endpoint_id)?;
        let project = ProjectId::from_bytes(&report.project_id)?;
        let receipt =
            Receipt { shard: receipt.shard, entry: receipt.entry.clone(), epoch: receipt.epoch };
        Some(Self {
            delivery,
            event: EventId::from_bytes(&report.event_id)?,
            endpoint,
            project,
            attempt: report.attempt,
            generation: report.generation,
            done: Done { receipt, delivery, endpoint, generation: report.generation },
        })
    }

    pub fn record(&self, result: AttemptResult) -> Option<Attempt> {
        let start = result.start_time?;
        let started_at = Timestamp::from_parts(start.seconds, start.nanos);
        Some(Attempt {
            id: AttemptId::derive(self.delivery, self.attempt, self.generation, started_at),
            delivery: self.delivery,
            event: self.event,
            endpoint: self.endpoint,
            project: self.project,
            number: self.attempt,
            outcome: AttemptOutcome::from_number(result.outcome)?,
            status_code: u16::try_from(result.status_code).ok().filter(|code| *code != 0),
            started_at,
            duration: Duration::from_micros(result.duration_micros),
            response_headers: result
                .response_headers
                .into_iter()
                .map(|header| (header.name, header.value))
                .collect(),
            response_body: result.response_body.to_vec(),
            response_truncated: result.response_truncated,
            error_message: Some(result.error_message).filter(|message| !message.is_empty()),
            resent: result.resent,
        })
    }
}

pub fn hold_reason(number: i32) -> Option<HoldReason> {
    match internal::HoldReason::try_from(number).ok()? {
        internal::HoldReason::Unspecified => None,
        internal::HoldReason::EndpointPaused => Some(HoldReason::EndpointPaused),
        internal::HoldReason::EndpointDeleted => Some(HoldReason::EndpointDeleted),
        internal::HoldReason::Stale => Some(HoldReason::Stale),
        internal::HoldReason::Released => Some(HoldReason::Released),
    }
}
