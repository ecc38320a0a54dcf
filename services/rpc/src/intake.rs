//! From ingest to dispatch: the same trait in one process and over gRPC.

use std::sync::Arc;

use async_trait::async_trait;
use outrider_model::{Error, Reason, Result};
use outrider_proto::internal::{
    AcceptEvent, AcceptEventResult, AcceptEventsRequest, AcceptEventsResponse, AcceptedEvent, FindEvent, FindEventResult,
    FindEventsRequest, FindEventsResponse, intake_service_client::IntakeServiceClient, intake_service_server::IntakeService,
};
use tonic::{Request, Response, Status, service::interceptor::InterceptedService};

use crate::{
    again::{Again, Calls},
    internal::{InternalToken, Present},
    role::RoleChannel,
    status::to_status,
};

/// Makes validated events durable.
#[async_trait]
pub trait Intake: Send + Sync + 'static {
    /// A result for each event, in order. An error means that the outcome of all is unknown or all were refused.
    async fn accept(&self, events: Vec<AcceptEvent>) -> Result<Vec<AcceptEventResult>>;

    /// The events that were accepted under these idempotency keys for the same content, in order; accepts none.
    async fn find(&self, events: Vec<FindEvent>) -> Result<Vec<Option<AcceptedEvent>>>;
}

/// Dispatch in another process.
#[derive(Clone)]
pub struct RemoteIntake {
    client: IntakeServiceClient<InterceptedService<Calls, Present>>,
    role: RoleChannel,
}

impl RemoteIntake {
    /// Over a channel, presenting the token; messages up to `max_bytes`.
    #[must_use]
    pub fn new(role: RoleChannel, token: Option<InternalToken>, max_bytes: usize) -> Self {
        let client = IntakeServiceClient::with_interceptor(Again::new(role.channel()), Present(token))
            .max_encoding_message_size(max_bytes)
            .max_decoding_message_size(max_bytes);
        Self { client, role }
    }

    fn failed(&self, status: &Status) -> Error {
        self.role.failed("dispatch", status)
    }
}

#[async_trait]
impl Intake for RemoteIntake {
    async fn accept(&self, events: Vec<AcceptEvent>) -> Result<Vec<AcceptEventResult>> {
        let wanted = events.len();
        let answer =
            self.client.clone().accept_events(AcceptEventsRequest { events }).await.map_err(|status| self.failed(&status))?;
        let results = answer.into_inner().results;
        counted(results, wanted)
    }

    async fn find(&self, events: Vec<FindEvent>) -> Result<Vec<Option<AcceptedEvent>>> {
        let wanted = events.len();
        match self.client.clone().find_events(FindEventsRequest { events }).await.map_err(|status| self.failed(&status)) {
            Ok(answer) => counted(answer.into_inner().results.into_iter().map(|result| result.event).collect(), wanted),
            // One of the version before, during an upgrade: it accepts, and does not know how to look.
            Err(error) if error.reason == Reason::UnknownMethod => Ok(vec![None; wanted]),
            Err(error) => Err(error),
        }
    }
}

fn counted<T>(results: Vec<T>, wanted: usize) -> Result<Vec<T>> {
    if results.len() == wanted { Ok(results) } else { Err(Error::internal("dispatch answered another number of results")) }
}

/// The gRPC face of an intake.
pub struct IntakeServer(pub Arc<dyn Intake>);

#[async_trait]
impl IntakeService for IntakeServer {
    async fn accept_events(&self, request: Request<AcceptEventsRequest>) -> Result<Response<AcceptEventsResponse>, Status> {
        let results = self.0.accept(request.into_inner().events).await.map_err(to_status)?;
        Ok(Response::new(AcceptEventsResponse { results }))
    }

    async fn find_events(&self, request: Request<FindEventsRequest>) -> Result<Response<FindEventsResponse>, Status> {
        let found = self.0.find(request.into_inner().events).await.map_err(to_status)?;
        let results = found.into_iter().map(|event| FindEventResult { event }).collect();
        Ok(Response::new(FindEventsResponse { results }))
    }
}
