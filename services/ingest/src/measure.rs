//! What ingest shows of itself.

use std::sync::LazyLock;

use outrider_model::{Error, Reason, Result};
use outrider_proto::ingest::{
    BatchPublishEventsResponse, PublishEventResponse, batch_publish_events_result::Result as ItemResult,
};
use outrider_rpc::status;
use outrider_telemetry::{
    catalogue::ingest::{ACCEPTED, BATCH, REFUSED, SECTION},
    metrics::{self, ByIndex},
};

static BY_RESULT: LazyLock<ByIndex> = LazyLock::new(|| ByIndex::new(&ACCEPTED, &["new", "duplicate"]));
static BY_REASON: LazyLock<ByIndex> =
    LazyLock::new(|| ByIndex::new(&REFUSED, &Reason::ALL.iter().map(|reason| reason.as_str()).collect::<Vec<_>>()));

/// Shows the role's metrics.
pub fn expose() {
    metrics::expose(&SECTION);
    for counters in [&BY_RESULT, &BY_REASON] {
        LazyLock::force(counters);
    }
}

/// One event was published, or refused.
pub fn one(answer: &Result<PublishEventResponse>) {
    BATCH.observe(1.0);
    match answer {
        Ok(response) => accepted(response),
        Err(error) => refused(error, 1),
    }
}

/// Several were.
pub fn batch(events: usize, answer: &Result<BatchPublishEventsResponse>) {
    BATCH.observe(events as f64);
    match answer {
        Ok(response) => {
            for result in &response.results {
                match &result.result {
                    Some(ItemResult::Accepted(response)) => accepted(response),
                    Some(ItemResult::Error(error)) => refused(&status::from_message(error), 1),
                    None => {}
                }
            }
        }
        Err(error) => refused(error, events),
    }
}

fn accepted(response: &PublishEventResponse) {
    BY_RESULT.add(usize::from(response.duplicate), 1);
}

fn refused(error: &Error, events: usize) {
    let place = Reason::ALL.iter().position(|reason| *reason == error.reason);
    BY_REASON.add(place.unwrap_or(0), events as u64);
}
