//! The gRPC face of dispatch.

mod deliveries;
mod events;

use std::sync::Arc;

use outrider_model::{Error, Result, Timestamp};
use outrider_proto::{
    dispatch::{
        delivery_service_server::DeliveryServiceServer, event_service_server::EventServiceServer,
    },
    internal::{
        intake_service_server::IntakeServiceServer,
        settlement_service_server::SettlementServiceServer,
    },
};
use outrider_rpc::{
    Intake, convert::parse_timestamp, intake::IntakeServer, settlement::SettlementServer,
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use self::{deliveries::Deliveries, events::Events};
use crate::{Given, Shared, handoff::Handoff, tail::Around};

/// The public services.
pub fn routes(shared: Shared, handoff: Handoff, shutdown: CancellationToken) -> Routes {
    // Answers are bounded where they are read, by the gateway.
    let limit = shared.given.max_request_bytes;
    let Shared { store, ledger, directory, tails, .. } = shared;
    let around = Around { tails, directory, shutdown };
    let events = Events { store: store.clone(), ledger, around: around.clone() };
    let events = EventServiceServer::new(events).max_decoding_message_size(limit);
    let deliveries = DeliveryServiceServer::new(Deliveries { store, handoff, around })
        .max_decoding_message_size(limit);
    Routes::new(events).add_service(deliveries)
}

/// The services for ingest and workers.
pub fn internal_routes(
    intake: Arc<dyn Intake>,
    settlement: SettlementServer,
    given: &Given,
) -> Routes {
    let intake = IntakeServiceServer::new(IntakeServer(intake))
        .max_decoding_message_size(given.max_intake_bytes);
    let settlement =
        SettlementServiceServer::new(settlement).max_decoding_message_size(given.max_reports_bytes);
    Routes::new(intake).add_service(settlement)
}

type Range = (Option<Timestamp>, Option<Timestamp>);

/// A range of times, `[start, end)`.
fn time_range(
    start: Option<&prost_types::Timestamp>,
    end: Option<&prost_types::Timestamp>,
) -> Result<Range> {
    let start = start.map(|at| parse_timestamp("start_time", at)).transpose()?;
    let end = end.map(|at| parse_timestamp("end_time", at)).transpose()?;
    match (start, end) {
        // Nothing lies between them: the two are most likely confused.
        (Some(start), Some(end)) if end <= start => {
            Err(Error::field("end_time", "must be after start_time"))
        }
        range => Ok(range),
    }
}

/// How a filter by time enters the binding of page tokens.
fn time_text(at: Option<Timestamp>) -> String {
    at.map(|at| at.0.to_string()).unwrap_or_default()
}
