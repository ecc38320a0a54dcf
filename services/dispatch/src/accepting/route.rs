//! Turns an event into its rows and jobs, with the directory in memory.

use std::sync::Arc;

use outrider_model::{
    AdmittedEvent, DeliveryId, EndpointState, Event, EventId, JobEvent, PendingDelivery, ProjectId,
    Result, Route, Timestamp,
};
use outrider_queue::NewJob;
use outrider_store::NewEvent;
use outrider_telemetry::Hop;

use crate::{handoff::Handoff, jobs, shared::Shared, trace};

/// Finds the endpoints of an event, and makes its rows and jobs.
pub async fn route(
    shared: &Shared,
    handoff: &Handoff,
    event: AdmittedEvent,
    id: EventId,
    now: Timestamp,
) -> Result<(NewEvent, Vec<NewJob>, Hop)> {
    let AdmittedEvent { project, deliver_at, payload, headers, .. } = event;
    let (hop, trace) = trace::accepting(event.trace, id);
    let router = shared.directory.router(project).await?;
    let routes = router.route(&event.event_type);

    let mut job_event = None;
    let mut deliveries = Vec::with_capacity(routes.len());
    let mut jobs = Vec::with_capacity(routes.len());
    for route in routes {
        let Some(entry) = shared.directory.endpoint(route.endpoint).await? else {
            continue;
        };
        let paused = entry.endpoint.spec.state != EndpointState::Active;
        let birth = Birth {
            id,
            project,
            event_type: &event.event_type,
            now,
            due_at: deliver_at.unwrap_or(now).max(now),
            paused,
        };
        let delivery = pending(shared, handoff, &birth, route);
        if delivery.queued_epoch.is_some() {
            let event = job_event.get_or_insert_with(|| {
                Arc::new(JobEvent {
                    id,
                    event_type: event.event_type.clone(),
                    content_type: event.content_type.clone(),
                    headers: headers.clone(),
                    ordering_key: event.ordering_key.clone(),
                    payload: jobs::payload(&payload, shared.options.inline_bytes),
                    trace: trace.clone(),
                })
            });
            jobs.extend(jobs::job(&delivery, event, shared.windows.endpoint(&entry), now));
        }
        deliveries.push(delivery);
    }
    let (idempotency_key, fingerprint) =
        event.idempotency.map(|given| (given.key, given.fingerprint)).unzip();
    let event = Event {
        id,
        project,
        event_type: event.event_type,
        content_type: event.content_type,
        payload_size: u32::try_from(payload.len()).unwrap_or(u32::MAX),
        idempotency_key,
        headers,
        metadata: event.metadata,
        ordering_key: event.ordering_key,
        deliver_at,
        delivery_count: u32::try_from(deliveries.len()).unwrap_or(u32::MAX),
        origin: event.origin,
        trace,
        created_at: now,
        payload_erased_at: None,
    };
    Ok((NewEvent { event, payload, fingerprint, deliveries }, jobs, hop))
}

/// Makes a pending row. It has the mark of its job if a job will be queued after the commit.
fn pending(shared: &Shared, handoff: &Handoff, birth: &Birth<'_>, route: Route) -> PendingDelivery {
    let due = birth.due_at <= birth.now && !birth.paused;
    let queued_epoch = if due { handoff.birth_epoch(route.endpoint) } else { None };
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
        check_at: birth.now.plus(shared.options.check_after),
        created_at: birth.now,
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
