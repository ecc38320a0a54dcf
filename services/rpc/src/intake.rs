//! From ingest to dispatch: the same trait in one process and over gRPC.

use std::sync::Arc;

use async_trait::async_trait;
use outrider_model::{Error, Result};
use outrider_proto::internal::{
    AcceptEvent, AcceptEventResult, AcceptEventsRequest, AcceptEventsResponse, intake_service_client::IntakeServiceClient,
    intake_service_server::IntakeService,
};
use tonic::{Request, Response, Status, service::interceptor::InterceptedService, transport::Channel};

use crate::{
    internal::{InternalToken, Present},
    status::{from_status, to_status},
};

/// Makes validated events durable.
#[async_trait]
pub trait Intake: Send + Sync + 'static {
    /// A result for each event, in order. An error means that the outcome of all is unknown or all were refused.
    async fn accept(&self, events: Vec<AcceptEvent>) -> Result<Vec<AcceptEventResult>>;
}

/// Dispatch in another process.
#[derive(Clone)]
pub struct RemoteIntake {
    client: IntakeServiceClient<InterceptedService<Channel, Present>>,
}

impl RemoteIntake {
    /// Over a channel, presenting the token; messages up to `max_bytes`.
    #[must_use]
    pub fn new(channel: Channel, token: Option<InternalToken>, max_bytes: usize) -> Self {
        let client = IntakeServiceClient::with_interceptor(channel, Present(token))
            .max_encoding_message_size(max_bytes)
            .max_decoding_message_size(max_bytes);
        Self { client }
    }
}

#[async_trait]
impl Intake for RemoteIntake {
    async fn accept(&self, events: Vec<AcceptEvent>) -> Result<Vec<AcceptEventResult>> {
        let wanted = events.len();
        let answer =
            self.client.clone().accept_events(AcceptEventsRequest { events }).await.map_err(|status| from_status(&status))?;
        let results = answer.into_inner().results;
        if results.len() == wanted { Ok(results) } else { Err(Error::internal("dispatch answered another number of results")) }
    }
}

/// The gRPC face of an intake.
pub struct IntakeServer(pub Arc<dyn Intake>);

#[async_trait]
impl IntakeService for IntakeServer {
    async fn accept_events(&self, request: Request<AcceptEventsRequest>) -> Result<Response<AcceptEventsResponse>, Status> {
        let results = self.0.accept(request.into_inner().events).await.map_err(to_status)?;
        Ok(Response::new(AcceptEventsResponse { results }))
    }
}
