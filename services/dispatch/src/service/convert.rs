//! Converts the model to wire types.

use bytes::Bytes;
use outrider_model::{Attempt, Delivery, Event, Origin, RoutingOutcome};
use outrider_proto::dispatch as wire;
use outrider_rpc::convert::{duration, timestamp};

use crate::tail::Message;

/// Converts an event. Lists omit its payload.
pub fn event(event: Event, payload: Option<Bytes>) -> wire::Event {
    let idempotency_key = event.producer_key().unwrap_or_default().to_owned();
    let routing_outcome = match event.routing_outcome() {
        RoutingOutcome::Routed => wire::RoutingOutcome::Routed,
        RoutingOutcome::NoSubscription => wire::RoutingOutcome::NoSubscription,
    };
    let Origin::Api { actor } = event.origin;
    wire::Event {
        event_id: event.id.to_string(),
        project_id: event.project.to_string(),
        event_type: event.event_type,
        payload: payload.unwrap_or_default(),
        payload_size: event.payload_size,
        content_type: event.content_type,
        idempotency_key,
        headers: event.headers.into_iter().collect(),
        metadata: event.metadata.into_iter().collect(),
        ordering_key: event.ordering_key.unwrap_or_default(),
        deliver_at: event.deliver_at.map(timestamp),
        delivery_count: event.delivery_count,
        routing_outcome: routing_outcome.into(),
        origin: Some(wire::Origin { kind: wire::OriginKind::Api.into(), actor }),
        create_time: Some(timestamp(event.created_at)),
        payload_erase_time: event.payload_erased_at.map(timestamp),
    }
}

/// Converts a delivery.
pub fn delivery(delivery: Delivery) -> wire::Delivery {
    wire::Delivery {
        delivery_id: delivery.id.to_string(),
        project_id: delivery.project.to_string(),
        event_id: delivery.event.to_string(),
        event_type: delivery.event_type,
        endpoint_id: delivery.endpoint.to_string(),
        subscription_ids: delivery.subscriptions.iter().map(ToString::to_string).collect(),
        replay_number: delivery.replay_number,
        // The model's numbers are those of the API. A test keeps them equal.
        status: delivery.status as i32,
        reason: delivery.reason as i32,
        attempt_count: delivery.attempt_count,
        next_attempt_time: delivery.next_attempt_at.map(timestamp),
        last_status_code: delivery.last_status_code.map_or(0, u32::from),
        create_time: Some(timestamp(delivery.created_at)),
        finish_time: delivery.finished_at.map(timestamp),
    }
}

/// Converts an attempt. Lists omit the endpoint's response.
pub fn attempt(attempt: Attempt, with_response: bool) -> wire::DeliveryAttempt {
    let (headers, body) = if with_response {
        (attempt.response_headers, attempt.response_body)
    } else {
        Default::default()
    };
    wire::DeliveryAttempt {
        attempt_id: attempt.id.to_string(),
        delivery_id: attempt.delivery.to_string(),
        event_id: attempt.event.to_string(),
        endpoint_id: attempt.endpoint.to_string(),
        project_id: attempt.project.to_string(),
        number: attempt.number,
        outcome: attempt.outcome as i32,
        status_code: attempt.status_code.map_or(0, u32::from),
        start_time: Some(timestamp(attempt.started_at)),
        duration: Some(duration(attempt.duration)),
        response_headers: headers
            .into_iter()
            .map(|(name, value)| wire::Header { name, value })
            .collect(),
        response_body: body.into(),
        response_truncated: attempt.response_truncated,
        error_message: attempt.error_message.unwrap_or_default(),
        resent: attempt.resent,
    }
}

/// Converts a message of a tail of events.
pub fn tailed_event(message: Message<(Event, Option<Bytes>)>) -> wire::TailEventsResponse {
    use wire::tail_events_response::Update;
    let update = match message.item {
        Some((accepted, payload)) => Update::Event(event(accepted, payload)),
        None => Update::Heartbeat(wire::TailHeartbeat { time: Some(timestamp(message.at)) }),
    };
    wire::TailEventsResponse { cursor: message.cursor, update: Some(update) }
}

/// Converts a message of a tail of deliveries.
pub fn tailed_delivery(
    message: Message<(Delivery, Option<Attempt>)>,
) -> wire::TailDeliveriesResponse {
    use wire::tail_deliveries_response::Update;
    let update = match message.item {
        Some((moved, made)) => {
            let made = made.map(|made| attempt(made, false));
            Update::Delivery(wire::DeliveryUpdate {
                delivery: Some(delivery(moved)),
                attempt: made,
            })
        }
        None => Update::Heartbeat(wire::TailHeartbeat { time: Some(timestamp(message.at)) }),
    };
    wire::TailDeliveriesResponse { cursor: message.cursor, update: Some(update) }
}

#[cfg(test)]
mod tests {
    use outrider_model::{AttemptOutcome, DeliveryReason, DeliveryStatus};
    use outrider_proto::DESCRIPTORS;

    #[test]
    fn the_model_and_the_protos_number_alike() {
        let names = |name: &str, known: fn(i32) -> Option<String>| {
            for value in DESCRIPTORS
                .get_enum_by_name(name)
                .unwrap()
                .values()
                .filter(|value| value.number() != 0)
            {
                let spelled = value.name().replace('_', "").to_lowercase();
                let model = known(value.number()).unwrap().to_lowercase();
                assert!(spelled.ends_with(&model), "{spelled} is {model}");
            }
        };
        names("outrider.dispatch.v1.DeliveryStatus", |n| {
            DeliveryStatus::from_number(n).map(|v| format!("{v:?}"))
        });
        names("outrider.dispatch.v1.DeliveryReason", |n| {
            DeliveryReason::from_number(n).map(|v| format!("{v:?}"))
        });
        names("outrider.dispatch.v1.AttemptOutcome", |n| {
            AttemptOutcome::from_number(n).map(|v| format!("{v:?}"))
        });
    }
}
