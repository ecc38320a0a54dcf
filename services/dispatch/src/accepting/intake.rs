//! The service that ingest calls.

use std::sync::Arc;

use async_trait::async_trait;
use outrider_model::{
    AcceptedEvent, AdmittedEvent, Error, EventId, Origin, Result, UsedKey, principal::Actor,
};
use outrider_rpc::Intake;
use outrider_shares::Holder;
use outrider_store::FoundEvent;
use outrider_telemetry::catalog::dispatch::ACCEPT_SECONDS;

use super::{
    commit::{Routed, commit, weigh},
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

/// Returns who publishes. A call comes from one caller, in one project.
fn owner(event: &AdmittedEvent) -> Owner {
    Owner { organization: event.organization, project: event.project }
}

fn holder(owner: Owner, event: &AdmittedEvent) -> Holder {
    let Origin::Api { actor } = &event.origin;
    Holder {
        organization: owner.organization,
        project: Some(owner.project),
        actor: actor.parse().map_or(Actor::System, Actor::ApiKey),
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
    async fn accept(&self, events: Vec<AdmittedEvent>) -> Result<Vec<Result<AcceptedEvent>>> {
        let _timed = ACCEPT_SECONDS.start_timer();
        let Some(first) = events.first() else { return Ok(Vec::new()) };
        let owner = owner(first);
        let mut room = self.room.enter(holder(owner, first))?;
        self.room
            .take(&mut room, events.iter().map(|event| event.payload.len() + FIXED_BYTES).sum())?;
        let mut routed = Vec::with_capacity(events.len());
        // The ids of one call increase in the order of its events.
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
        // From here on, only the commit holds the room.
        drop(room);
        self.batcher.try_commit(owner, routed).await
    }

    async fn find(&self, keys: Vec<UsedKey>) -> Result<Vec<Option<AcceptedEvent>>> {
        let keys_since =
            self.shared.store.clock().now().minus(self.shared.options.idempotency_lifetime);
        let found = self.shared.ledger.find(&keys, keys_since).await.map_err(|why| {
            tracing::warn!(%why, "idempotency keys were not looked up");
            Error::unavailable("the database does not answer")
        })?;
        Ok(found.into_iter().map(|found| found.map(repeated)).collect())
    }
}

fn repeated(FoundEvent { event, delivery_count, created_at }: FoundEvent) -> AcceptedEvent {
    AcceptedEvent { id: event, duplicate: true, delivery_count, created_at }
}
