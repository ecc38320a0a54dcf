//! Metrics of ingest.

use std::sync::LazyLock;

use outrider_model::{Error, Reason, Result};
use outrider_proto::ingest::PublishEventResponse;
use outrider_telemetry::{
    catalog::ingest::{ACCEPTED, BATCH, REFUSED, SECTION},
    metrics::{self, ByIndex},
};

static BY_RESULT: LazyLock<ByIndex> =
    LazyLock::new(|| ByIndex::new(&ACCEPTED, &["new", "duplicate"]));
static BY_REASON: LazyLock<ByIndex> = LazyLock::new(|| {
    ByIndex::new(&REFUSED, &Reason::ALL.iter().map(|reason| reason.as_str()).collect::<Vec<_>>())
});

/// Exposes the role's metrics.
pub fn expose() {
    metrics::expose(&SECTION);
    for counters in [&BY_RESULT, &BY_REASON] {
        LazyLock::force(counters);
    }
}

/// Counts the answer to a single event.
pub fn one(answer: &Result<PublishEventResponse>) {
    BATCH.observe(1.0);
    match answer {
        Ok(response) => accepted(response),
        Err(error) => refused(error, 1),
    }
}

/// Counts the answers to a batch.
pub fn batch(events: usize, answers: &Result<Vec<Result<PublishEventResponse>>>) {
    BATCH.observe(events as f64);
    match answers {
        Ok(answers) => answers.iter().for_each(|answer| match answer {
            Ok(response) => accepted(response),
            Err(error) => refused(error, 1),
        }),
        Err(error) => refused(error, events),
    }
}

fn accepted(response: &PublishEventResponse) {
    BY_RESULT.add(usize::from(response.duplicate), 1);
}

/// Counts refused events by reason.
pub fn refused(error: &Error, events: usize) {
    let place = Reason::ALL.iter().position(|reason| *reason == error.reason);
    BY_REASON.add(place.unwrap_or(0), events as u64);
}
