//! Deliveries and their state machine. A delivery is pending until an attempt succeeds, the
//! schedule is used up, or its endpoint is gone.

use std::time::Duration;

use crate::{
    AttemptId, DeliveryId, EndpointId, EventId, ProjectId, RetryPolicy, SubscriptionId, Timestamp,
};

/// The delivery of an event to an endpoint, pending or ended, as readers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub id: DeliveryId,
    pub project: ProjectId,
    pub event: EventId,
    pub event_type: String,
    pub endpoint: EndpointId,
    /// The matching subscriptions, oldest first.
    pub subscriptions: Vec<SubscriptionId>,
    pub replay_number: u32,
    pub status: DeliveryStatus,
    pub reason: DeliveryReason,
    /// Number of attempts made.
    pub attempt_count: u32,
    /// Set while the delivery is pending.
    pub next_attempt_at: Option<Timestamp>,
    pub last_status_code: Option<u16>,
    pub created_at: Timestamp,
    /// Set once the delivery has ended.
    pub finished_at: Option<Timestamp>,
}

/// A pending delivery: the only mutable row, which is deleted when the delivery ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingDelivery {
    pub id: DeliveryId,
    pub project: ProjectId,
    pub event: EventId,
    pub event_type: String,
    pub endpoint: EndpointId,
    pub subscriptions: Vec<SubscriptionId>,
    pub replay_number: u32,
    /// Number of the next attempt. The first attempt is 1.
    pub attempt: u32,
    /// When the next attempt may begin.
    pub due_at: Timestamp,
    /// Epoch of the queue shard when a job was queued, or is about to be. `None` while the delivery
    /// waits in the database only.
    pub queued_epoch: Option<i64>,
    /// How often the delivery was queued.
    pub generation: u32,
    /// While the delivery is queued: when the feeder must ask the queue whether it still has the
    /// job.
    pub check_at: Timestamp,
    pub created_at: Timestamp,
}

/// The status of a delivery. The numbers are those of the API, and are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum DeliveryStatus {
    Pending = 1,
    Delivered = 2,
    Failed = 3,
    Cancelled = 4,
}

/// The reason for the status. The numbers are those of the API, and are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum DeliveryReason {
    Scheduled = 1,
    Due = 2,
    Retrying = 3,
    EndpointPaused = 4,
    Succeeded = 5,
    Exhausted = 6,
    EndpointDeleted = 7,
    ProjectDeleted = 8,
}

/// The outcome of an attempt. The numbers are those of the API, and are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum AttemptOutcome {
    Succeeded = 1,
    Rejected = 2,
    TimedOut = 3,
    NameNotResolved = 4,
    ConnectionFailed = 5,
    TlsFailed = 6,
    AddressRefused = 7,
    BadResponse = 8,
}

impl AttemptOutcome {
    /// Names for metrics and spans, each at the index of its number. The first one is unused.
    pub const NAMES: [&'static str; 9] = [
        "unknown",
        "succeeded",
        "rejected",
        "timed-out",
        "name-not-resolved",
        "connection-failed",
        "tls-failed",
        "address-refused",
        "bad-response",
    ];

    /// Returns the name for metrics and spans.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

macro_rules! from_number {
    ($($name:ident { $($variant:ident)* })*) => {$(
        impl $name {
            /// Returns the value with this number.
            #[must_use]
            pub fn from_number(number: i32) -> Option<Self> {
                $(if number == Self::$variant as i32 { return Some(Self::$variant); })*
                None
            }
        }
    )*};
}

from_number! {
    DeliveryStatus { Pending Delivered Failed Cancelled }
    DeliveryReason {
    Scheduled Due Retrying EndpointPaused Succeeded Exhausted EndpointDeleted ProjectDeleted
}
    AttemptOutcome {
    Succeeded Rejected TimedOut NameNotResolved ConnectionFailed TlsFailed AddressRefused
    BadResponse
}
}

/// An HTTP exchange, or the attempt at one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub id: AttemptId,
    pub delivery: DeliveryId,
    pub event: EventId,
    pub endpoint: EndpointId,
    pub project: ProjectId,
    /// The first attempt is 1.
    pub number: u32,
    pub outcome: AttemptOutcome,
    pub status_code: Option<u16>,
    pub started_at: Timestamp,
    pub duration: Duration,
    pub response_headers: Vec<(String, String)>,
    pub response_body: Vec<u8>,
    pub response_truncated: bool,
    /// Contains no internal addresses.
    pub error_message: Option<String>,
    /// Whether the request was sent twice, because a reused connection ended without a response.
    pub resent: bool,
}

/// The reason why a worker sent nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum HoldReason {
    EndpointPaused = 1,
    EndpointDeleted = 2,
    Stale = 3,
    Released = 4,
}

impl HoldReason {
    /// Names for metrics, each at the index of its number. The first one is unused.
    pub const NAMES: [&'static str; 5] =
        ["unknown", "endpoint-paused", "endpoint-deleted", "stale", "released"];

    /// Returns the name for metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// The decision about a pending delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The delivery ends.
    End(DeliveryStatus, DeliveryReason),
    /// Another attempt, with the next number, follows at this time.
    Retry(Timestamp),
    /// The delivery returns to the database, due as before. No attempt was made.
    Hold,
    /// Nothing changes, because the report is out of date.
    Ignore,
}

/// Decides about an attempt that was made. `random` is drawn uniformly from 0 to 1.
#[must_use]
pub fn judge_attempt(
    outcome: AttemptOutcome,
    attempt: u32,
    now: Timestamp,
    policy: &RetryPolicy,
    random: f64,
) -> Verdict {
    if outcome == AttemptOutcome::Succeeded {
        return Verdict::End(DeliveryStatus::Delivered, DeliveryReason::Succeeded);
    }
    match policy.wait_after(attempt, random) {
        Some(wait) => Verdict::Retry(now.plus(wait)),
        None => Verdict::End(DeliveryStatus::Failed, DeliveryReason::Exhausted),
    }
}

/// Decides about a job for which nothing was sent. A worker learns from a cache that an endpoint is
/// gone, and canceling cannot be undone. So the delivery returns to the database, where canceling
/// checks the endpoint.
#[must_use]
pub fn judge_hold(reason: HoldReason) -> Verdict {
    match reason {
        HoldReason::EndpointPaused | HoldReason::EndpointDeleted | HoldReason::Released => {
            Verdict::Hold
        }
        HoldReason::Stale => Verdict::Ignore,
    }
}

/// Whether a verdict about the attempt `reported` applies to a delivery whose next attempt is
/// `current`. A verdict about the same attempt does, and so does the success of an earlier one,
/// which arrives late but is true.
fn applies(verdict: Verdict, reported: u32, current: u32) -> bool {
    match verdict {
        Verdict::End(DeliveryStatus::Delivered, _) => reported <= current,
        Verdict::End(..) | Verdict::Retry(_) | Verdict::Hold => reported == current,
        Verdict::Ignore => false,
    }
}

/// What the state machine needs to know about a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobVerdict {
    /// The attempt that the job was for.
    pub attempt: u32,
    /// The generation of the job.
    pub generation: u32,
    /// Whether a request was made, or tried.
    pub attempted: bool,
    pub verdict: Verdict,
}

/// The effect of a report on a pending delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The delivery continues, unqueued. Contains the next attempt, and when it is due.
    Wait { attempt: u32, due_at: Timestamp },
    /// The delivery ends after this number of attempts.
    End { status: DeliveryStatus, reason: DeliveryReason, attempt_count: u32 },
}

/// Returns the step of the state machine, or `None` if the report changes nothing. A hold must have
/// the generation of the row, because an older job that was given back says nothing about the job
/// that followed it.
#[must_use]
pub fn step(row: &PendingDelivery, report: JobVerdict) -> Option<Step> {
    if !applies(report.verdict, report.attempt, row.attempt) {
        return None;
    }
    match report.verdict {
        Verdict::Ignore => None,
        Verdict::Hold if report.generation != row.generation => None,
        Verdict::Hold => Some(Step::Wait { attempt: row.attempt, due_at: row.due_at }),
        Verdict::Retry(due_at) => Some(Step::Wait { attempt: row.attempt + 1, due_at }),
        Verdict::End(status, reason) => {
            let made =
                if report.attempted { report.attempt } else { report.attempt.saturating_sub(1) };
            Some(Step::End {
                status,
                reason,
                attempt_count: made.max(row.attempt.saturating_sub(1)),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_ends_failure_retries_until_the_schedule_is_used_up() {
        let policy = RetryPolicy::new(vec![Duration::from_secs(1)]);
        let judge = |outcome, attempt| judge_attempt(outcome, attempt, Timestamp(0), &policy, 0.5);
        assert_eq!(
            judge(AttemptOutcome::Succeeded, 7),
            Verdict::End(DeliveryStatus::Delivered, DeliveryReason::Succeeded)
        );
        assert_eq!(judge(AttemptOutcome::TimedOut, 1), Verdict::Retry(Timestamp(1_000_000)));
        assert_eq!(
            judge(AttemptOutcome::Rejected, 2),
            Verdict::End(DeliveryStatus::Failed, DeliveryReason::Exhausted)
        );
    }

    #[test]
    fn a_late_success_applies_and_a_late_failure_does_not() {
        let success = Verdict::End(DeliveryStatus::Delivered, DeliveryReason::Succeeded);
        assert!(applies(success, 1, 3));
        assert!(!applies(Verdict::Retry(Timestamp(0)), 1, 3));
        assert!(applies(Verdict::Retry(Timestamp(0)), 3, 3));
        assert!(!applies(Verdict::Ignore, 3, 3));
    }
}
