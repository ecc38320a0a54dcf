//! What a worker shows of itself. Counters of outcomes are found by number: nothing here looks a
//! text up for a job.

use std::{sync::LazyLock, time::Duration};

use outrider_model::{AttemptOutcome, Timestamp};
use outrider_proto::internal::{AttemptResult, HoldReason, Job};
use outrider_telemetry::{
    catalogue::worker::{
        ANSWERS_DROPPED, ATTEMPT_SECONDS, ATTEMPTS, CONNECTIONS, EXCEEDED, FIRST_ATTEMPT_SECONDS,
        HELD, QUEUE_SECONDS, RESENT, SECTION,
    },
    metrics::{self, ByIndex},
};

use crate::fault::Fault;

/// In the order of `HoldReason`.
const REASONS: [&str; 5] = ["unknown", "endpoint-paused", "endpoint-deleted", "stale", "released"];
const USES: [&str; 2] = ["new", "reused"];
/// In the order of `Fault`, from 1.
const BOUNDS: [&str; 6] = ["unknown", "interim-answers", "head", "upgrade", "bytes", "reads"];

static BY_OUTCOME: LazyLock<ByIndex> =
    LazyLock::new(|| ByIndex::new(&ATTEMPTS, &AttemptOutcome::NAMES));
static BY_REASON: LazyLock<ByIndex> = LazyLock::new(|| ByIndex::new(&HELD, &REASONS));
static BY_BOUND: LazyLock<ByIndex> = LazyLock::new(|| ByIndex::new(&EXCEEDED, &BOUNDS));
static BY_USE: LazyLock<ByIndex> = LazyLock::new(|| ByIndex::new(&CONNECTIONS, &USES));

/// Shows the metrics of workers, those of which nothing happened yet too.
pub(crate) fn expose() {
    metrics::expose(&SECTION);
    for counters in [&BY_OUTCOME, &BY_REASON, &BY_USE, &BY_BOUND] {
        LazyLock::force(counters);
    }
}

/// An answer found no room until its report is settled.
pub(crate) fn answer_dropped() {
    ANSWERS_DROPPED.inc();
}

/// The name of an outcome by its number in the API.
pub(crate) fn outcome_name(number: i32) -> &'static str {
    let place = usize::try_from(number).unwrap_or(0);
    AttemptOutcome::NAMES.get(place).copied().unwrap_or(AttemptOutcome::NAMES[0])
}

/// A job was read that had been queued then.
pub(crate) fn read(now: Timestamp, queued_at: Timestamp) {
    QUEUE_SECONDS.observe(now.since(queued_at).as_secs_f64());
}

/// An attempt ended.
pub(crate) fn attempted(job: &Job, began: Timestamp, result: &AttemptResult, duration: Duration) {
    BY_OUTCOME.add(usize::try_from(result.outcome).unwrap_or(0), 1);
    ATTEMPT_SECONDS.observe(duration.as_secs_f64());
    if job.attempt == 1 && job.due_at != 0 {
        FIRST_ATTEMPT_SECONDS.observe(began.since(Timestamp(job.due_at)).as_secs_f64());
    }
}

/// A job was not sent.
pub(crate) fn held(reason: HoldReason) {
    BY_REASON.add(usize::try_from(i32::from(reason)).unwrap_or(0), 1);
}

/// An exchange was given up. Whoever speaks another protocol exceeds no bound.
pub(crate) fn exceeded(fault: Fault) {
    if fault == Fault::NotHttp {
        return;
    }
    BY_BOUND.add(fault as usize, 1);
}

/// Whether a connection was used before.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Used {
    First,
    Again,
}

/// A request was sent on a connection.
pub(crate) fn connection(used: Used) {
    BY_USE.add(used as usize, 1);
}

/// A request is sent once more, since a connection that had been used before ended without an
/// answer.
pub(crate) fn resent() {
    RESENT.inc();
}

#[cfg(test)]
mod tests {
    use outrider_proto::{DESCRIPTORS, dispatch};

    use super::*;

    #[test]
    fn names_stand_at_their_numbers() {
        for (number, name) in AttemptOutcome::NAMES.iter().enumerate().skip(1) {
            let outcome =
                dispatch::AttemptOutcome::try_from(i32::try_from(number).unwrap()).unwrap();
            assert_eq!(
                outcome.as_str_name(),
                format!("ATTEMPT_OUTCOME_{}", name.to_uppercase().replace('-', "_"))
            );
        }
        for (number, name) in REASONS.iter().enumerate().skip(1) {
            let reason = HoldReason::try_from(i32::try_from(number).unwrap()).unwrap();
            assert_eq!(
                reason.as_str_name(),
                format!("HOLD_REASON_{}", name.to_uppercase().replace('-', "_"))
            );
        }
        let known = |name: &str| DESCRIPTORS.get_enum_by_name(name).unwrap().values().count();
        assert_eq!(known("outrider.dispatch.v1.AttemptOutcome"), AttemptOutcome::NAMES.len());
        assert_eq!(known("outrider.internal.v1.HoldReason"), REASONS.len());
        assert_eq!((outcome_name(99), outcome_name(-1)), ("unknown", "unknown"));
    }
}
