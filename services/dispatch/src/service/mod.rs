//! The gRPC services of dispatch.

mod convert;
mod deliveries;
mod events;
mod filters;

use std::sync::Arc;

use outrider_proto::dispatch::{
    delivery_service_server::DeliveryServiceServer, event_service_server::EventServiceServer,
};
use outrider_rpc::{Intake, intake, settlement::SettlementServer};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use self::{deliveries::Deliveries, events::Events};
use crate::{handoff::Handoff, options::Given, shared::Shared, tail::Around};

/// The public services.
pub fn routes(shared: Shared, handoff: Handoff, shutdown: CancellationToken) -> Routes {
    // The gateway bounds answers when it reads them.
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
    Routes::new(intake::service(intake, given.max_intake_bytes))
        .add_service(settlement.service(given.max_reports_bytes))
}
