//! Accepting: an event, its idempotency key and its pending deliveries in one commit; then the
//! answer; then the queue.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use futures::future::BoxFuture;
use outrider_failpoints::{Point, pass};
use outrider_model::{
    DeliveryId, Error, Event, EventId, Origin, PendingDelivery, ProjectId, Reason, Result, Route,
    Timestamp, principal::Actor,
};
use outrider_proto::internal::{
    AcceptEvent, AcceptEventResult, AcceptedEvent, FindEvent, accept_event_result,
};
use outrider_queue::NewJob;
use outrider_rpc::{Intake, convert, status};
use outrider_shares::{Holder, Resource, Share, Shares};
use outrider_store::{Accepted, FoundEvent, LedgerError, LogKind, NewEvent, UsedKey};
use outrider_telemetry::{
    Hop,
    catalogue::dispatch::{ACCEPT_SECONDS, COMMIT_EVENTS, COMMIT_SECONDS},
};

use crate::{
    Options, Shared,
    batcher::{Batcher, Commit, Shape},
    handoff::Handoff,
    jobs::{self, JobEvent},
    line::Owner,
    trace,
};

/// A routed event on its way to a commit, with the jobs that follow it.
struct Routed {
    event: NewEvent,
    jobs: Vec<NewJob>,
    /// From the event's arrival until its commit is known.
    hop: Hop,
    /// What its whole call holds: given back once all of it is committed, whether or not somebody
    /// still waits for the answer.
    room: Arc<Room>,
}

/// What a call holds of what all callers share.
struct Room {
    bytes: Share,
    _call: Share,
}

const CALLS: Resource =
    Resource { name: "accept-calls", noun: "publish requests that wait for a commit", least: 1 };
const BYTES: Resource = Resource {
    name: "accept-bytes",
    noun: "bytes of events and deliveries that wait for a commit",
    // An event of usual size with a few deliveries.
    least: 64 * 1024,
};

/// Deliveries, and bytes of a payload, that weigh as much in a commit as a small event with few.
const DELIVERIES_OF_A_WEIGHT: usize = 32;
const BYTES_OF_A_WEIGHT: usize = 16 * 1024;

fn weigh(routed: &Routed) -> usize {
    let NewEvent { deliveries, payload, .. } = &routed.event;
    1 + deliveries.len() / DELIVERIES_OF_A_WEIGHT + payload.len() / BYTES_OF_A_WEIGHT
}

/// What an event, and what a delivery, is counted with beside its payload or headers.
const FIXED_BYTES: usize = 1024;

/// Who publishes: a call is of one caller, and in one project.
fn owner(event: &AcceptEvent) -> Result<Owner> {
    Ok(Owner {
        organization: convert::parse_id("organization_id", &event.organization_id)?,
        project: convert::parse_id("project_id", &event.project_id)?,
    })
}

fn holder(owner: Owner, event: &AcceptEvent) -> Holder {
    Holder {
        organization: owner.organization,
        project: Some(owner.project),
        actor: event.actor.parse().map_or(Actor::System, Actor::ApiKey),
    }
}

/// Bytes of headers, of which each job has a copy.
fn headers_of(new: &NewEvent) -> usize {
    new.event.headers.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// Takes events from ingest.
pub struct Accepter {
    shared: Shared,
    handoff: Handoff,
    batcher: Batcher<Routed, Result<AcceptedEvent>>,
    calls: Shares,
    bytes: Shares,
    /// Bytes that a single call is counted with at most: a larger one must find room some time.
    most_of_a_call: usize,
}

impl Accepter {
    pub fn start(shared: Shared, handoff: Handoff) -> Self {
        let Options { accept_lanes: lanes, accept_batch: batch, accept_queue: queue, .. } =
            *shared.options;
        let shape = Shape { lanes, reserved: usize::from(lanes > 1), batch, queue };
        let commit: Commit<Routed, Result<AcceptedEvent>> = {
            let (shared, handoff) = (shared.clone(), handoff.clone());
            Arc::new(move |batch| Box::pin(commit(shared.clone(), handoff.clone(), batch)))
        };
        let calls = Shares::new(CALLS, queue);
        let bytes = Shares::new(BYTES, shared.options.accept_queue_bytes);
        let most_of_a_call = bytes.most() / 2;
        Self {
            batcher: Batcher::start(shape, weigh, commit),
            calls,
            bytes,
            most_of_a_call,
            shared,
            handoff,
        }
    }

    /// Finds where an event goes and makes its rows and jobs.
    async fn route(
        &self,
        event: AcceptEvent,
        id: EventId,
        now: Timestamp,
    ) -> Result<(NewEvent, Vec<NewJob>, Hop)> {
        let project: ProjectId = convert::parse_id("project_id", &event.project_id)?;
        let deliver_at = event
            .deliver_at
            .as_ref()
            .map(|at| convert::parse_timestamp("deliver_at", at))
            .transpose()?;
        let (hop, trace) = trace::accepting(&event, id);
        let router = self.shared.directory.router(project).await?;
        let routes = router.route(&event.event_type);
        let headers: BTreeMap<String, String> = event.headers.into_iter().collect();
        let payload = event.payload;

        let mut deliveries = Vec::with_capacity(routes.len());
        let mut jobs = Vec::with_capacity(routes.len());
        for route in routes {
            let Some(entry) = self.shared.directory.endpoint(route.endpoint).await? else {
                continue;
            };
            let paused = entry.endpoint.state != outrider_model::EndpointState::Active;
            let birth = Birth {
                id,
                project,
                event_type: &event.event_type,
                now,
                due_at: deliver_at.unwrap_or(now).max(now),
                paused,
            };
            let delivery = self.pending(&birth, route);
            let job_event = JobEvent {
                event_type: &event.event_type,
                content_type: &event.content_type,
                headers: &headers,
                ordering_key: &event.ordering_key,
                payload: jobs::body(&payload, self.shared.options.inline_bytes),
                trace: trace.as_ref(),
            };
            let endpoint = self.shared.windows.endpoint(&entry);
            jobs.extend(jobs::job(&delivery, job_event, endpoint, now));
            deliveries.push(delivery);
        }
        let fingerprint = <[u8; 32]>::try_from(event.fingerprint.as_ref()).ok();
        let event = Event {
            id,
            project,
            event_type: event.event_type,
            content_type: event.content_type,
            payload_size: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            idempotency_key: Some(event.idempotency_key).filter(|key| !key.is_empty()),
            headers,
            metadata: event.metadata.into_iter().collect(),
            ordering_key: Some(event.ordering_key).filter(|key| !key.is_empty()),
            deliver_at,
            delivery_count: u32::try_from(deliveries.len()).unwrap_or(u32::MAX),
            origin: Origin::Api { actor: event.actor },
            trace,
            created_at: now,
            payload_erased_at: None,
        };
        Ok((NewEvent { event, payload, fingerprint, deliveries }, jobs, hop))
    }

    /// The room of a call that its holder has nothing of yet but the place.
    fn room(&self, holder: Holder) -> Result<Room> {
        Ok(Room { _call: self.calls.take(holder, 1)?, bytes: self.bytes.share(holder) })
    }

    /// More memory for a call: so many bytes of payloads, or of deliveries, each of which has a row
    /// and a job with a copy of the headers.
    fn take(&self, room: &mut Room, bytes: usize) -> Result<()> {
        let left = self.most_of_a_call.saturating_sub(room.bytes.amount());
        Ok(room.bytes.grow(bytes.min(left))?)
    }

    /// A pending row, born with the mark of the job that will follow it, when one will.
    fn pending(&self, birth: &Birth<'_>, route: Route) -> PendingDelivery {
        let due = birth.due_at <= birth.now && !birth.paused;
        let queued_epoch = if due { self.handoff.birth_epoch(route.endpoint) } else { None };
        PendingDelivery {
            id: DeliveryId::derive(birth.now, birth.id, route.endpoint, 0),
            project: birth.project,
            event: birth.id,
            event_type: birth.event_type.to_owned(),
            endpoint: route.endpoint,
            subscriptions: route.subscriptions,
            replay_number: 0,
            attempt: 1,
            due_at: birth.due_at,
            queued_epoch,
            generation: u32::from(queued_epoch.is_some()),
            check_at: birth.now.plus(self.shared.options.check_after),
            created_at: birth.now,
        }
    }
}

struct Birth<'a> {
    id: EventId,
    project: ProjectId,
    event_type: &'a str,
    now: Timestamp,
    due_at: Timestamp,
    paused: bool,
}

#[async_trait]
impl Intake for Accepter {
    async fn accept(&self, events: Vec<AcceptEvent>) -> Result<Vec<AcceptEventResult>> {
        let _timed = ACCEPT_SECONDS.start_timer();
        let Some(first) = events.first() else { return Ok(Vec::new()) };
        let owner = owner(first)?;
        let mut room = self.room(holder(owner, first))?;
        self.take(&mut room, events.iter().map(|event| event.payload.len() + FIXED_BYTES).sum())?;
        let mut routed = Vec::with_capacity(events.len());
        // Ids of one call rise with the order of its events.
        let (now, first) = (self.shared.store.clock().now(), rand::random::<u64>() >> 4);
        for (event, random) in events.into_iter().zip(first..) {
            let event = self.route(event, EventId::new(now, random), now).await?;
            self.take(&mut room, event.0.deliveries.len() * (FIXED_BYTES + headers_of(&event.0)))?;
            routed.push(event);
        }
        let room = Arc::new(room);
        let routed = routed
            .into_iter()
            .map(|(event, jobs, hop)| Routed { event, jobs, hop, room: Arc::clone(&room) })
            .collect();
        // From here on only the commit holds it.
        drop(room);
        let results = self.batcher.try_commit(owner, routed).await?;
        Ok(results.into_iter().map(result).collect())
    }

    async fn find(&self, events: Vec<FindEvent>) -> Result<Vec<Option<AcceptedEvent>>> {
        let keys = events.into_iter().map(used_key).collect::<Result<Vec<_>>>()?;
        let keys_since =
            self.shared.store.clock().now().minus(self.shared.options.idempotency_lifetime);
        let found = self.shared.ledger.find(&keys, keys_since).await.map_err(|why| {
            tracing::warn!(%why, "idempotency keys were not looked up");
            Error::unavailable("the database does not answer")
        })?;
        let event =
            |found: FoundEvent| to_wire(found.event, true, found.delivery_count, found.created_at);
        Ok(found.into_iter().map(|found| found.map(event)).collect())
    }
}

fn used_key(event: FindEvent) -> Result<UsedKey> {
    let project = convert::parse_id("project_id", &event.project_id)?;
    let fingerprint = <[u8; 32]>::try_from(event.fingerprint.as_ref());
    let fingerprint = fingerprint.map_err(|_| Error::field("fingerprint", "must have 32 bytes"))?;
    Ok(UsedKey { project, key: event.idempotency_key, fingerprint })
}

fn result(outcome: Result<AcceptedEvent>) -> AcceptEventResult {
    AcceptEventResult {
        result: Some(match outcome {
            Ok(accepted) => accept_event_result::Result::Accepted(accepted),
            Err(error) => accept_event_result::Result::Error(status::to_message(error)),
        }),
    }
}

/// One commit, and then the jobs of what was new. The answers do not wait for the queue: jobs go on
/// by a channel.
async fn commit(
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
    // Born while their endpoint was congested, which it may not be any more.
    handoff.feed_uncongested(unmarked);
    if !queued.is_empty() {
        tokio::spawn(async move { handoff.submit(queued).await });
    }
    Ok(results)
}

/// Writes a batch; when the database refuses the data of some row, splits until the culprit is
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
                tracing::error!(%why, event_id = %events[0].event.id, "the database refuses an event");
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
    let (event_id, duplicate, delivery_count, created_at) = match accepted {
        Accepted::New => (event.id, false, event.delivery_count, event.created_at),
        Accepted::Duplicate { event, delivery_count, created_at } => {
            (event, true, delivery_count, created_at)
        }
        Accepted::Conflict => {
            let message = "the idempotency key was used with another event";
            return Err(Error::new(Reason::IdempotencyConflict, message));
        }
    };
    Ok(to_wire(event_id, duplicate, delivery_count, created_at))
}

fn to_wire(
    event: EventId,
    duplicate: bool,
    delivery_count: u32,
    created_at: Timestamp,
) -> AcceptedEvent {
    AcceptedEvent {
        event_id: event.to_string(),
        duplicate,
        delivery_count,
        create_time: Some(convert::timestamp(created_at)),
    }
}
