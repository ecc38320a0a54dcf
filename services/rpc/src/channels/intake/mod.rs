//! From ingest to dispatch: one trait, both in process and over gRPC.

pub(super) mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use outrider_model::{AcceptedEvent, AdmittedEvent, Error, Reason, Result, UsedKey};
use outrider_proto::internal::{
    AcceptEventsRequest, AcceptEventsResponse, FindEventsRequest, FindEventsResponse,
    intake_service_client::IntakeServiceClient,
    intake_service_server::{IntakeService, IntakeServiceServer},
};
use outrider_telemetry::Seldom;
use tonic::{Code, Request, Response, Status, service::interceptor::InterceptedService};

use crate::{
    channels::{
        resend::{Resend, ResendingChannel},
        role::RoleChannel,
    },
    guard::internal::{InternalToken, PresentToken},
    wire::{cause, status::to_status},
};

/// Makes validated events durable.
#[async_trait]
pub trait Intake: Send + Sync + 'static {
    /// Accepts events and returns a result for each, in order. An error means that all were
    /// refused, or that the outcome of all is unknown.
    async fn accept(&self, events: Vec<AdmittedEvent>) -> Result<Vec<Result<AcceptedEvent>>>;

    /// Returns the events that were accepted under these idempotency keys with the same content, in
    /// order. Accepts none.
    async fn find(&self, keys: Vec<UsedKey>) -> Result<Vec<Option<AcceptedEvent>>>;
}

/// Bounds the log lines: while settings differ between processes, every call may be refused.
static TOO_LARGE: Seldom = Seldom::new();

/// The client for dispatch in another process.
#[derive(Clone)]
pub struct RemoteIntake {
    client: IntakeServiceClient<InterceptedService<ResendingChannel, PresentToken>>,
    role: RoleChannel,
}

impl RemoteIntake {
    /// Makes calls over a channel and presents the token. Callers bound the size of requests, which
    /// in turn bounds the size of answers.
    #[must_use]
    pub fn new(role: RoleChannel, token: Option<InternalToken>) -> Self {
        let client =
            IntakeServiceClient::with_interceptor(Resend::new(role.channel()), PresentToken(token));
        Self { client: client.max_decoding_message_size(usize::MAX), role }
    }

    /// Converts the status of a failed call. A message over the limit of dispatch fails with a
    /// status of the gRPC library.
    fn call_error(&self, status: &Status) -> Error {
        if status.code() == Code::OutOfRange && status.details().is_empty() {
            let message = "the events together are larger than dispatch accepts: \
                           gateway.max_request_bytes and ingest.max_batch_bytes must be the same \
                           in all processes";
            if let Some(times) = TOO_LARGE.happened() {
                tracing::error!(error = cause::of_status(status), times, "{message}");
            }
            return Error::new(Reason::TooLarge, message);
        }
        self.role.call_error("dispatch", status)
    }
}

#[async_trait]
impl Intake for RemoteIntake {
    async fn accept(&self, events: Vec<AdmittedEvent>) -> Result<Vec<Result<AcceptedEvent>>> {
        let wanted = events.len();
        let events = events.into_iter().map(wire::from_admitted).collect();
        let answer = self.client.clone().accept_events(AcceptEventsRequest { events }).await;
        let results = answer.map_err(|status| self.call_error(&status))?.into_inner().results;
        counted(results.into_iter().map(wire::to_result).collect(), wanted)
    }

    async fn find(&self, keys: Vec<UsedKey>) -> Result<Vec<Option<AcceptedEvent>>> {
        let wanted = keys.len();
        let events = keys.into_iter().map(wire::from_used_key).collect();
        match self
            .client
            .clone()
            .find_events(FindEventsRequest { events })
            .await
            .map_err(|status| self.call_error(&status))
        {
            Ok(answer) => {
                let found = answer.into_inner().results.into_iter().map(wire::to_found);
                counted(found.collect::<Result<_>>()?, wanted)
            }
            // Dispatch of the previous version, during an upgrade, does not know this method.
            Err(error) if error.reason == Reason::UnknownMethod => Ok(vec![None; wanted]),
            Err(error) => Err(error),
        }
    }
}

fn counted<T>(results: Vec<T>, wanted: usize) -> Result<Vec<T>> {
    if results.len() == wanted {
        Ok(results)
    } else {
        Err(Error::internal("dispatch returned a wrong number of results"))
    }
}

/// Serves an intake over gRPC. Messages may have at most `max_bytes`.
pub fn service(intake: Arc<dyn Intake>, max_bytes: usize) -> IntakeServiceServer<IntakeServer> {
    IntakeServiceServer::new(IntakeServer(intake)).max_decoding_message_size(max_bytes)
}

/// Converts calls for an intake.
pub struct IntakeServer(Arc<dyn Intake>);

#[async_trait]
impl IntakeService for IntakeServer {
    async fn accept_events(
        &self,
        request: Request<AcceptEventsRequest>,
    ) -> Result<Response<AcceptEventsResponse>, Status> {
        let events = request.into_inner().events.into_iter().map(wire::to_admitted);
        let events = events.collect::<Result<_>>().map_err(to_status)?;
        let results = self.0.accept(events).await.map_err(to_status)?;
        let results = results.into_iter().map(wire::from_result).collect();
        Ok(Response::new(AcceptEventsResponse { results }))
    }

    async fn find_events(
        &self,
        request: Request<FindEventsRequest>,
    ) -> Result<Response<FindEventsResponse>, Status> {
        let keys = request.into_inner().events.into_iter().map(wire::to_used_key);
        let keys = keys.collect::<Result<_>>().map_err(to_status)?;
        let found = self.0.find(keys).await.map_err(to_status)?;
        let results = found.into_iter().map(wire::from_found).collect();
        Ok(Response::new(FindEventsResponse { results }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;

    use super::*;

    /// Accepts everything.
    struct Everything;

    #[async_trait]
    impl Intake for Everything {
        async fn accept(&self, events: Vec<AdmittedEvent>) -> Result<Vec<Result<AcceptedEvent>>> {
            Ok(events.iter().map(|_| Ok(wire::tests::accepted())).collect())
        }

        async fn find(&self, keys: Vec<UsedKey>) -> Result<Vec<Option<AcceptedEvent>>> {
            Ok(vec![None; keys.len()])
        }
    }

    #[tokio::test]
    async fn dispatch_sets_the_limit_and_the_error_names_its_settings() {
        const LIMIT: usize = 20 << 20;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = service(Arc::new(Everything), LIMIT);
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let remote =
            RemoteIntake::new(crate::channels::channel::channel(&url, None).unwrap(), None);
        let of = |bytes: usize| AdmittedEvent {
            payload: vec![b'x'; bytes].into(),
            ..wire::tests::admitted()
        };
        // Above every limit of the library, and just below the limit of dispatch.
        assert_eq!(remote.accept(vec![of(LIMIT - 1024)]).await.unwrap().len(), 1);
        let refused = remote.accept(vec![of(LIMIT)]).await.unwrap_err();
        assert_eq!(refused.reason, Reason::TooLarge);
        assert!(refused.message.contains("ingest.max_batch_bytes"), "{refused}");
        assert_eq!(
            remote.accept(vec![of(1); 3]).await.unwrap().len(),
            3,
            "the channel still works"
        );
    }
}
