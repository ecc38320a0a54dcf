//! The commit of events, and the steps after it.

use std::sync::Arc;

use futures::future::BoxFuture;
use outrider_failpoints::{Point, pass};
use outrider_model::{AcceptedEvent, Error, Event, Reason, Result, Timestamp};
use outrider_queue::NewJob;
use outrider_store::{Accepted, LedgerError, LogKind, NewEvent};
use outrider_telemetry::{
    Hop,
    catalog::dispatch::{COMMIT_EVENTS, COMMIT_SECONDS},
};

use super::room::CallRoom;
use crate::{handoff::Handoff, shared::Shared, trace};

/// A routed event that waits for its commit, with the jobs to queue afterward.
pub struct Routed {
    pub event: NewEvent,
    pub jobs: Vec<NewJob>,
    /// The span from the event's arrival until the result of its commit is known.
    pub hop: Hop,
    /// The room that its call holds. It is given back when all of the call is committed, even if
    /// nobody waits for the answer any more.
    pub room: Arc<CallRoom>,
}

/// How many deliveries, and how many bytes of a payload, weigh as much in a commit as one small
/// event with few deliveries.
const DELIVERIES_OF_A_WEIGHT: usize = 32;
const BYTES_OF_A_WEIGHT: usize = 16 * 1024;

pub fn weigh(routed: &Routed) -> usize {
    let NewEvent { deliveries, payload, .. } = &routed.event;
    1 + deliveries.len() / DELIVERIES_OF_A_WEIGHT + payload.len() / BYTES_OF_A_WEIGHT
}

/// Makes one commit, and then hands over the jobs of new events. Answers do not wait for the queue,
/// because jobs continue through a channel.
pub async fn commit(
    shared: Shared,
    handoff: Handoff,
    batch: Vec<Routed>,
) -> Result<Vec<Result<AcceptedEvent>>> {
    let (events, rest): (Vec<NewEvent>, Vec<_>) = batch
        .into_iter()
        .map(|Routed { event, jobs, hop, room }| (event, (jobs, hop, room)))
        .unzip();
    let keys_since = shared.store.clock().now().minus(shared.options.idempotency_lifetime);
    COMMIT_EVENTS.observe(events.len() as f64);
    let timed = COMMIT_SECONDS.start_timer();
    pass(Point::BeforeCommit);
    let outcomes = write(&shared, &events, keys_since).await;
    pass(Point::AfterCommit);
    let seconds = timed.stop_and_record();
    shared.tails.committed(LogKind::Events, events.iter().map(|new| new.event.project));
    let (mut queued, mut unmarked) = (Vec::new(), Vec::new());
    let mut results = Vec::with_capacity(events.len());
    for ((event, (jobs, hop, _room)), outcome) in events.iter().zip(rest).zip(outcomes) {
        trace::committed(&hop, events.len(), seconds, &outcome);
        if matches!(outcome, Ok(Accepted::New)) {
            queued.extend(jobs);
            let due = event
                .deliveries
                .iter()
                .filter(|row| row.queued_epoch.is_none() && row.due_at <= row.created_at);
            unmarked.extend(due.map(|row| row.endpoint));
        }
        results.push(outcome.and_then(|accepted| answer(&event.event, accepted)));
    }
    // These were written unmarked because their endpoint was congested, which may no longer be so.
    handoff.feed_uncongested(unmarked);
    if !queued.is_empty() {
        tokio::spawn(async move { handoff.submit(queued).await });
    }
    Ok(results)
}

/// Writes a batch. If the database refuses the data of a row, splits the batch until that row is
/// alone.
fn write<'a>(
    shared: &'a Shared,
    events: &'a [NewEvent],
    keys_since: Timestamp,
) -> BoxFuture<'a, Vec<Result<Accepted>>> {
    Box::pin(async move {
        match shared.ledger.accept(events, keys_since).await {
            Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
            Err(LedgerError::Data(why)) if events.len() == 1 => {
                tracing::error!(%why, event_id = %events[0].event.id,
                    "the database refuses an event");
                vec![Err(Error::new(Reason::InvalidField, "the event cannot be stored"))]
            }
            Err(LedgerError::Data(_)) => {
                let (left, right) = events.split_at(events.len() / 2);
                let mut outcomes = write(shared, left, keys_since).await;
                outcomes.extend(write(shared, right, keys_since).await);
                outcomes
            }
            Err(LedgerError::Unavailable(why)) => {
                tracing::warn!(%why, events = events.len(), "events were not committed");
                events
                    .iter()
                    .map(|_| {
                        Err(Error::unavailable(
                            "the database does not answer; the outcome is unknown",
                        ))
                    })
                    .collect()
            }
        }
    })
}

fn answer(event: &Event, accepted: Accepted) -> Result<AcceptedEvent> {
    Ok(match accepted {
        Accepted::New => AcceptedEvent {
            id: event.id,
            duplicate: false,
            delivery_count: event.delivery_count,
            created_at: event.created_at,
        },
        Accepted::Duplicate { event, delivery_count, created_at } => {
            AcceptedEvent { id: event, duplicate: true, delivery_count, created_at }
        }
        Accepted::Conflict => {
            let message = "the idempotency key was used with another event";
            return Err(Error::new(Reason::IdempotencyConflict, message));
        }
    })
}
