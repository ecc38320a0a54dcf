//! The metrics of dispatch, and its periodic measurements of the whole deployment. An alert must
//! not depend on what it watches, so the age of the oldest due delivery comes from the database and
//! not from the feeder.

use std::sync::LazyLock;

use outrider_model::{AttemptOutcome, DeliveryStatus, Verdict};
use outrider_queue::Enqueued;
use outrider_store::{DeletedRows, Settled};
use outrider_telemetry::{
    catalog::dispatch::{
        ATTEMPTS, ENDED, HELD_DAYS, JOBS, OLDEST_DAY, PARTITIONS_DROPPED, PAYLOADS_ERASED,
        REQUEUED, ROWS_DELETED, SECTION, SWEEPS,
    },
    metrics::{self, ByIndex},
};

const STATUSES: [&str; 3] = ["delivered", "failed", "cancelled"];
const RESULTS: [&str; 6] = ["queued", "present", "full", "wrong-epoch", "failed", "late"];
const TABLES: [&str; 6] =
    ["events", "deliveries", "attempts", "idempotency_keys", "replays", "changes"];
const CAUSES: [&str; 2] = ["lost", "epoch"];

static BY_OUTCOME: LazyLock<ByIndex> =
    LazyLock::new(|| ByIndex::new(&ATTEMPTS, &AttemptOutcome::NAMES));
static BY_STATUS: LazyLock<ByIndex> = LazyLock::new(|| ByIndex::new(&ENDED, &STATUSES));
static BY_RESULT: LazyLock<ByIndex> = LazyLock::new(|| ByIndex::new(&JOBS, &RESULTS));
static BY_CAUSE: LazyLock<ByIndex> = LazyLock::new(|| ByIndex::new(&REQUEUED, &CAUSES));

/// Counts a settled batch: its attempts, and the deliveries that ended.
pub fn settled(batch: &[Settled], applied: &[bool]) {
    for settled in batch {
        if let Some(record) = &settled.record {
            BY_OUTCOME.add(record.outcome as usize, 1);
        }
    }
    for (settled, _) in batch.iter().zip(applied).filter(|(_, applied)| **applied) {
        if let Verdict::End(status, _) = settled.verdict {
            ended(status, 1);
        }
    }
}

/// Counts deliveries that ended.
pub fn ended(status: DeliveryStatus, count: u64) {
    match status {
        DeliveryStatus::Delivered => BY_STATUS.add(0, count),
        DeliveryStatus::Failed => BY_STATUS.add(1, count),
        DeliveryStatus::Cancelled => BY_STATUS.add(2, count),
        DeliveryStatus::Pending => {}
    }
}

/// Counts jobs that were offered to the queue.
pub fn offered(answers: &[Enqueued]) {
    let mut counts = [0; 4];
    for answer in answers {
        counts[match answer {
            Enqueued::Queued => 0,
            Enqueued::Present => 1,
            Enqueued::Full => 2,
            Enqueued::WrongEpoch => 3,
        }] += 1;
    }
    for (index, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
        BY_RESULT.add(index, count);
    }
}

/// Counts jobs that were offered to a queue that did not answer.
pub fn not_offered(jobs: usize) {
    BY_RESULT.add(4, jobs as u64);
}

/// Counts jobs that were too old to be offered.
pub fn too_late(jobs: usize) {
    BY_RESULT.add(5, jobs as u64);
}

/// Counts deliveries that are queued again because the queue lacked them.
pub fn lost(count: usize) {
    BY_CAUSE.add(0, count as u64);
}

/// Counts deliveries that are queued again because the queue is another one.
pub fn of_former_queue(count: u64) {
    BY_CAUSE.add(1, count);
}

/// Counts rows that a sweep removed.
pub fn gone(gone: &[DeletedRows]) {
    for DeletedRows { table, partitions, rows } in gone {
        PARTITIONS_DROPPED.with_label_values(&[*table]).inc_by(*partitions);
        ROWS_DELETED.with_label_values(&[*table]).inc_by(*rows);
    }
}

/// Counts erased payloads.
pub fn erased(cause: &'static str, count: u64) {
    PAYLOADS_ERASED.with_label_values(&[cause]).inc_by(count);
}

/// Counts a sweep that ended.
pub fn swept(result: &'static str) {
    SWEEPS.with_label_values(&[result]).inc();
}

/// Sets the number of old days that could not be removed.
pub fn held_days(count: i64) {
    HELD_DAYS.set(count);
}

/// Sets the oldest day of history.
pub fn oldest_day(day: Option<i32>) {
    OLDEST_DAY.set(day.map_or(0, |day| i64::from(day) * 86_400));
}

/// Registers the metrics of dispatch, so that counters without an event show 0.
pub fn expose() {
    metrics::expose(&SECTION);
    for counters in [&BY_OUTCOME, &BY_STATUS, &BY_RESULT, &BY_CAUSE] {
        LazyLock::force(counters);
    }
    expose_sweeps();
}

fn expose_sweeps() {
    for table in TABLES {
        gone(&[DeletedRows { table, partitions: 0, rows: 0 }]);
    }
    for cause in ["retention", "request"] {
        erased(cause, 0);
    }
    for result in ["done", "blocked", "failed"] {
        SWEEPS.with_label_values(&[result]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_at_their_numbers() {
        for (number, name) in AttemptOutcome::NAMES.iter().enumerate().skip(1) {
            let outcome = AttemptOutcome::from_number(i32::try_from(number).unwrap()).unwrap();
            assert_eq!(format!("{outcome:?}").to_lowercase(), name.replace('-', ""));
        }
        assert!(
            AttemptOutcome::from_number(i32::try_from(AttemptOutcome::NAMES.len()).unwrap())
                .is_none()
        );
    }
}
