//! Reports on the wire between workers and dispatch.

use std::time::Duration;

use bytes::Bytes;
use outrider_model::{
    AttemptOutcome, DeliveryId, EndpointId, EventId, HoldReason, JobReport, JobResult, ProjectId,
    Receipt, ReportedJob, Timestamp,
};
use outrider_proto::{
    dispatch::Header,
    internal::{self, AttemptReport, AttemptResult, JobReceipt, attempt_report},
};

use crate::wire::convert::timestamp;

pub(super) fn from_report(report: JobReport) -> AttemptReport {
    let ReportedJob { delivery, event, endpoint, project, attempt, generation } = report.job;
    let Receipt { shard, entry, epoch } = report.receipt;
    let result = match report.result {
        JobResult::Attempted(result) => attempt_report::Result::Attempted(from_result(result)),
        JobResult::Held(reason) => attempt_report::Result::Held(from_reason(reason).into()),
    };
    AttemptReport {
        delivery_id: id(delivery.as_bytes()),
        event_id: id(event.as_bytes()),
        endpoint_id: id(endpoint.as_bytes()),
        project_id: id(project.as_bytes()),
        attempt,
        generation,
        receipt: Some(JobReceipt { shard, entry, epoch }),
        result: Some(result),
        traceparent: report.trace_parent.unwrap_or_default(),
    }
}

/// Returns `None` for a report of a version that says something else.
pub(super) fn to_report(report: AttemptReport) -> Option<JobReport> {
    let JobReceipt { shard, entry, epoch } = report.receipt?;
    Some(JobReport {
        job: ReportedJob {
            delivery: DeliveryId::from_bytes(&report.delivery_id)?,
            event: EventId::from_bytes(&report.event_id)?,
            endpoint: EndpointId::from_bytes(&report.endpoint_id)?,
            project: ProjectId::from_bytes(&report.project_id)?,
            attempt: report.attempt,
            generation: report.generation,
        },
        receipt: Receipt { shard, entry, epoch },
        result: match report.result? {
            attempt_report::Result::Attempted(result) => JobResult::Attempted(to_result(result)?),
            attempt_report::Result::Held(number) => JobResult::Held(to_reason(number)?),
        },
        trace_parent: Some(report.traceparent).filter(|parent| !parent.is_empty()),
    })
}

fn from_result(result: outrider_model::AttemptResult) -> AttemptResult {
    let headers = result.response_headers.into_iter();
    AttemptResult {
        outcome: result.outcome as i32,
        status_code: result.status_code.map_or(0, u32::from),
        start_time: Some(timestamp(result.started_at)),
        duration_micros: u64::try_from(result.duration.as_micros()).unwrap_or(u64::MAX),
        response_headers: headers.map(|(name, value)| Header { name, value }).collect(),
        response_body: result.response_body,
        response_truncated: result.response_truncated,
        error_message: result.error_message.unwrap_or_default(),
        resent: result.resent,
    }
}

fn to_result(result: AttemptResult) -> Option<outrider_model::AttemptResult> {
    let start = result.start_time?;
    let headers = result.response_headers.into_iter();
    Some(outrider_model::AttemptResult {
        outcome: AttemptOutcome::from_number(result.outcome)?,
        status_code: u16::try_from(result.status_code).ok().filter(|code| *code != 0),
        started_at: Timestamp::from_parts(start.seconds, start.nanos),
        duration: Duration::from_micros(result.duration_micros),
        response_headers: headers.map(|header| (header.name, header.value)).collect(),
        response_body: result.response_body,
        response_truncated: result.response_truncated,
        error_message: Some(result.error_message).filter(|message| !message.is_empty()),
        resent: result.resent,
    })
}

fn from_reason(reason: HoldReason) -> internal::HoldReason {
    match reason {
        HoldReason::EndpointPaused => internal::HoldReason::EndpointPaused,
        HoldReason::EndpointDeleted => internal::HoldReason::EndpointDeleted,
        HoldReason::Stale => internal::HoldReason::Stale,
        HoldReason::Released => internal::HoldReason::Released,
    }
}

fn to_reason(number: i32) -> Option<HoldReason> {
    match internal::HoldReason::try_from(number).ok()? {
        internal::HoldReason::Unspecified => None,
        internal::HoldReason::EndpointPaused => Some(HoldReason::EndpointPaused),
        internal::HoldReason::EndpointDeleted => Some(HoldReason::EndpointDeleted),
        internal::HoldReason::Stale => Some(HoldReason::Stale),
        internal::HoldReason::Released => Some(HoldReason::Released),
    }
}

fn id(bytes: &[u8; 16]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use outrider_proto::DESCRIPTORS;
    use prost::Message as _;

    use super::*;

    /// A report with this response body, and a value in every field.
    pub(in super::super) fn attempted(response_body: Bytes) -> JobReport {
        let at = Timestamp(1_700_000_000_000_001);
        JobReport {
            job: ReportedJob {
                delivery: DeliveryId::new(at, 1),
                event: EventId::new(at, 2),
                endpoint: EndpointId::new(at, 3),
                project: ProjectId::new(at, 4),
                attempt: u32::MAX,
                generation: u32::MAX,
            },
            receipt: Receipt { shard: u32::MAX, entry: "5-6".to_owned(), epoch: -1 },
            result: JobResult::Attempted(outrider_model::AttemptResult {
                outcome: AttemptOutcome::Rejected,
                status_code: Some(599),
                started_at: at,
                duration: Duration::from_micros(u64::MAX),
                response_headers: vec![("name".to_owned(), "value".to_owned()); 3],
                response_body,
                response_truncated: true,
                error_message: Some("error".to_owned()),
                resent: true,
            }),
            trace_parent: Some("00-a".to_owned()),
        }
    }

    pub(in super::super) fn body_bytes(report: &JobReport) -> usize {
        let JobResult::Attempted(result) = &report.result else { return 0 };
        result.response_body.len()
    }

    fn held(reason: HoldReason) -> JobReport {
        JobReport { result: JobResult::Held(reason), trace_parent: None, ..attempted("".into()) }
    }

    #[test]
    fn everything_arrives_as_it_was_sent_and_is_no_larger_than_said() {
        let mut bare = attempted("".into());
        if let JobResult::Attempted(result) = &mut bare.result {
            result.status_code = None;
            result.error_message = None;
            result.response_headers.clear();
        }
        for report in [
            attempted("body".into()),
            attempted(vec![b'x'; 1 << 20].into()),
            bare,
            held(HoldReason::EndpointPaused),
            held(HoldReason::EndpointDeleted),
            held(HoldReason::Stale),
            held(HoldReason::Released),
        ] {
            let wire = from_report(report.clone());
            // In a list: with its tag and length.
            assert!(wire.encoded_len() + 6 <= report.size(), "{report:?}");
            assert_eq!(to_report(wire), Some(report));
        }
    }

    #[test]
    fn reports_of_another_version_are_none() {
        let good = || from_report(attempted("body".into()));
        let with = |change: &dyn Fn(&mut AttemptResult)| {
            let mut report = good();
            if let Some(attempt_report::Result::Attempted(result)) = &mut report.result {
                change(result);
            }
            report
        };
        let unknown = attempt_report::Result::Held(99);
        let unspecified = attempt_report::Result::Held(0);
        for other in [
            AttemptReport { delivery_id: "short".into(), ..good() },
            AttemptReport { event_id: "".into(), ..good() },
            AttemptReport { endpoint_id: "".into(), ..good() },
            AttemptReport { project_id: "".into(), ..good() },
            AttemptReport { receipt: None, ..good() },
            AttemptReport { result: None, ..good() },
            AttemptReport { result: Some(unknown), ..good() },
            AttemptReport { result: Some(unspecified), ..good() },
            with(&|result| result.outcome = 99),
            with(&|result| result.start_time = None),
        ] {
            assert_eq!(to_report(other), None);
        }
    }

    #[test]
    fn names_stand_at_their_numbers() {
        let upper = |name: &str| name.to_uppercase().replace('-', "_");
        for (number, name) in AttemptOutcome::NAMES.iter().enumerate().skip(1) {
            let number = i32::try_from(number).unwrap();
            let outcome = outrider_proto::dispatch::AttemptOutcome::try_from(number).unwrap();
            assert_eq!(outcome.as_str_name(), format!("ATTEMPT_OUTCOME_{}", upper(name)));
        }
        for (number, name) in HoldReason::NAMES.iter().enumerate().skip(1) {
            let reason = internal::HoldReason::try_from(i32::try_from(number).unwrap()).unwrap();
            assert_eq!(reason.as_str_name(), format!("HOLD_REASON_{}", upper(name)));
        }
        let known = |name: &str| DESCRIPTORS.get_enum_by_name(name).unwrap().values().count();
        assert_eq!(known("outrider.dispatch.v1.AttemptOutcome"), AttemptOutcome::NAMES.len());
        assert_eq!(known("outrider.internal.v1.HoldReason"), HoldReason::NAMES.len());
    }
}
