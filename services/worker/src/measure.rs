//! Metrics of a worker. Counters of outcomes are found by number, so that no job costs a lookup by
//! text.

use std::sync::LazyLock;

use outrider_model::{AttemptOutcome, AttemptResult, HoldReason, Job, Timestamp};
use outrider_telemetry::{
    catalog::worker::{
        ANSWERS_DROPPED, ATTEMPT_SECONDS, ATTEMPTS, CONNECTIONS, EXCEEDED, FIRST_ATTEMPT_SECONDS,
        HELD, QUEUE_SECONDS, RESENT, SECTION,
    },
    metrics::{self, ByIndex},
};

use crate::fault::Fault;

const USES: [&str; 2] = ["new", "reused"];
/// In the order of `Fault`, from 1.
const BOUNDS: [&str; 6] = ["unknown", "interim-answers", "head", "upgrade", "bytes", "reads"];

static BY_OUTCOME: LazyLock<ByIndex> =
    LazyLock::new(|| ByIndex::new(&ATTEMPTS, &AttemptOutcome::NAMES));
static BY_REASON: LazyLock<ByIndex> = LazyLock::new(|| ByIndex::new(&HELD, &HoldReason::NAMES));
static BY_BOUND: LazyLock<ByIndex> = LazyLock::new(|| ByIndex::new(&EXCEEDED, &BOUNDS));
static BY_USE: LazyLock<ByIndex> = LazyLock::new(|| ByIndex::new(&CONNECTIONS, &USES));

/// Shows the metrics of workers, including those that are still 0.
pub(crate) fn expose() {
    metrics::expose(&SECTION);
    for counters in [&BY_OUTCOME, &BY_REASON, &BY_USE, &BY_BOUND] {
        LazyLock::force(counters);
    }
}

/// Counts a response that found no room until its report is settled.
pub(crate) fn answer_dropped() {
    ANSWERS_DROPPED.inc();
}

/// Records how long a job was queued.
pub(crate) fn read(now: Timestamp, queued_at: Timestamp) {
    QUEUE_SECONDS.observe(now.since(queued_at).as_secs_f64());
}

/// Records an attempt.
pub(crate) fn attempted(job: &Job, result: &AttemptResult) {
    BY_OUTCOME.add(result.outcome as usize, 1);
    ATTEMPT_SECONDS.observe(result.duration.as_secs_f64());
    if let Some(due_at) = job.due_at.filter(|_| job.attempt == 1) {
        FIRST_ATTEMPT_SECONDS.observe(result.started_at.since(due_at).as_secs_f64());
    }
}

/// Counts a job that was not sent.
pub(crate) fn held(reason: HoldReason) {
    BY_REASON.add(reason as usize, 1);
}

/// Counts an exchange that was given up. Another protocol than HTTP exceeds no bound.
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

/// Counts a request on a connection.
pub(crate) fn connection(used: Used) {
    BY_USE.add(used as usize, 1);
}

/// Counts a request that is sent once more, because a reused connection ended without a response.
pub(crate) fn resent() {
    RESENT.inc();
}
