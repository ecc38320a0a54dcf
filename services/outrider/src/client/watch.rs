//! `outrider deliveries watch`.

use std::ops::ControlFlow;

use clap::Args;
use outrider_proto::dispatch::{
    Delivery, DeliveryStatus, DeliveryUpdate, GetDeliveryRequest, TailDeliveriesRequest,
    delivery_service_client::DeliveryServiceClient, tail_deliveries_response::Update,
};

use super::{
    Failure,
    connection::{Service, Session, WHOLE},
    follow::follow,
    output::{Column, Output},
    status::Status,
};

const COLUMNS: &[Column] = &[
    ("begun", "attempt.start_time"),
    ("id", "delivery.delivery_id"),
    ("type", "delivery.event_type"),
    ("endpoint", "delivery.endpoint_id"),
    ("status", "delivery.status"),
    ("reason", "delivery.reason"),
    ("no.", "attempt.number"),
    ("outcome", "attempt.outcome"),
    ("http", "attempt.status_code"),
    ("error", "attempt.error_message"),
];

#[derive(Debug, Args)]
pub struct Watch {
    /// A delivery, dlv_…, which is watched until it ends.
    #[arg(conflicts_with_all = ["endpoint", "event", "status", "cursor"])]
    pub id: Option<String>,
    /// Only deliveries to this endpoint.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub endpoint: String,
    /// Only deliveries of this event.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub event: String,
    /// Only deliveries that now have this status; can be repeated.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub status: Vec<Status>,
    /// Continues after the update that was printed with this cursor (--json).
    #[arg(long, default_value = "", hide_default_value = true)]
    pub cursor: String,
}

/// Prints changes of deliveries until it is ended.
pub async fn run(session: &Session, options: Watch) -> Result<(), Failure> {
    let (api, output, project_id) = (
        DeliveryServiceClient::new(session.service()).max_decoding_message_size(WHOLE),
        session.output,
        session.project()?,
    );
    if let Some(id) = options.id {
        return one(api, output, GetDeliveryRequest { project_id, delivery_id: id }).await;
    }
    let request = TailDeliveriesRequest {
        project_id,
        cursor: String::new(),
        endpoint_id: options.endpoint,
        event_id: options.event,
        statuses: options.status.into_iter().map(|status| status.wire().into()).collect(),
    };
    let open = async |cursor| {
        api.clone().tail_deliveries(TailDeliveriesRequest { cursor, ..request.clone() }).await
    };
    follow(
        options.cursor,
        open,
        |message| message.cursor.clone(),
        async |message| match message.update {
            Some(Update::Delivery(update)) => {
                output.live(&message.cursor, "delivery", &update, COLUMNS)
            }
            _ => Ok(ControlFlow::Continue(())),
        },
    )
    .await
}

/// Prints the state of a delivery, and then its changes until it ends. Changes before the start of
/// the tail are part of the state.
async fn one(
    api: DeliveryServiceClient<Service>,
    output: Output,
    asked: GetDeliveryRequest,
) -> Result<(), Failure> {
    let get = async || -> Result<Delivery, Failure> {
        Ok(api.clone().get_delivery(asked.clone()).await?.into_inner().delivery.unwrap_or_default())
    };
    let event_id = get().await?.event_id;
    let request = TailDeliveriesRequest {
        project_id: asked.project_id.clone(),
        event_id,
        ..TailDeliveriesRequest::default()
    };
    let open = async |cursor| {
        api.clone().tail_deliveries(TailDeliveriesRequest { cursor, ..request.clone() }).await
    };
    let mut begun = false;
    follow(
        String::new(),
        open,
        |message| message.cursor.clone(),
        async |message| {
            let update = match message.update {
                Some(Update::Delivery(update)) => Some(update),
                // The first heartbeat. From here on, no change is missed.
                _ if !std::mem::replace(&mut begun, true) => {
                    Some(DeliveryUpdate { delivery: Some(get().await?), attempt: None })
                }
                _ => None,
            };
            let told = |update: &DeliveryUpdate| {
                update.delivery.as_ref().is_some_and(|one| one.delivery_id == asked.delivery_id)
            };
            let Some(update) = update.filter(told) else { return Ok(ControlFlow::Continue(())) };
            let written = output.live(&message.cursor, "delivery", &update, COLUMNS)?;
            let pending = update
                .delivery
                .is_some_and(|delivery| delivery.status() == DeliveryStatus::Pending);
            Ok(if pending { written } else { ControlFlow::Break(()) })
        },
    )
    .await
}
