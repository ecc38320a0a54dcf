//! What ingest calls.

use std::sync::Arc;

use async_trait::async_trait;
use outrider_model::{Error, EventId, Result, principal::Actor};
use outrider_proto::internal::{
    AcceptEvent, AcceptEventResult, AcceptedEvent, FindEvent, accept_event_result,
};
use outrider_rpc::{Intake, convert, status};
use outrider_shares::Holder;
use outrider_store::{FoundEvent, UsedKey};
use outrider_telemetry::catalogue::dispatch::ACCEPT_SECONDS;

use super::{
    commit::{Routed, commit, to_wire, weigh},
    room::{FIXED_BYTES, Room, headers_of},
    route::route,
};
use crate::{
    batcher::{BatchLimits, Batcher, Commit},
    fair_queue::Owner,
    handoff::Handoff,
    options::Options,
    shared::Shared,
};

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

/// Takes events from ingest.
pub struct EventIntake {
    shared: Shared,
    handoff: Handoff,
    batcher: Batcher<Routed, Result<AcceptedEvent>>,
    room: Room,
}

impl EventIntake {
    pub fn start(shared: Shared, handoff: Handoff) -> Self {
        let Options { accept_lanes: lanes, accept_batch: batch, accept_queue: queue, .. } =
            *shared.options;
        let limits = BatchLimits { lanes, reserved: usize::from(lanes > 1), batch, queue };
        let commit: Commit<Routed, Result<AcceptedEvent>> = {
            let (shared, handoff) = (shared.clone(), handoff.clone());
            Arc::new(move |batch| Box::pin(commit(shared.clone(), handoff.clone(), batch)))
        };
        Self {
            batcher: Batcher::start(limits, weigh, commit),
            room: Room::new(queue, shared.options.accept_queue_bytes),
            shared,
            handoff,
        }
    }
}

#[async_trait]
impl Intake for EventIntake {
    async fn accept(&self, events: Vec<AcceptEvent>) -> Result<Vec<AcceptEventResult>> {
        let _timed = ACCEPT_SECONDS.start_timer();
        let Some(first) = events.first() else { return Ok(Vec::new()) };
        let owner = owner(first)?;
        let mut room = self.room.enter(holder(owner, first))?;
        self.room
            .take(&mut room, events.iter().map(|event| event.payload.len() + FIXED_BYTES).sum())?;
        let mut routed = Vec::with_capacity(events.len());
        // Ids of one call rise with the order of its events.
        let (now, first) = (self.shared.store.clock().now(), rand::random::<u64>() >> 4);
        for (event, random) in events.into_iter().zip(first..) {
            let event =
                route(&self.shared, &self.handoff, event, EventId::new(now, random), now).await?;
            self.room
                .take(&mut room, event.0.deliveries.len() * (FIXED_BYTES + headers_of(&event.0)))?;
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
