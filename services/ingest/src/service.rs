//! The gRPC face of ingest.

use std::sync::Arc;

use async_trait::async_trait;
use outrider_model::{Error, Principal, Project, ProjectId, Result, limits};
use outrider_proto::ingest::{
    BatchPublishEventsRequest, BatchPublishEventsResponse, BatchPublishEventsResult, NewEvent,
    PublishEventRequest, PublishEventResponse, StreamEventsRequest,
    batch_publish_events_result::Result as ItemResult,
    ingest_service_server::{IngestService, IngestServiceServer},
};
use outrider_rpc::{Intake, convert::parse_id, principal, status, to_status};
use outrider_shares::Holder;
use outrider_store::{Clock, Directory};
use outrider_telemetry::TraceContext;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, service::Routes};
use tracing::Instrument as _;

use crate::{
    Given, Options, admit,
    judge::{Asker, Judge},
    large::Large,
    measure,
    stream::{self, Streams},
    validate::{self, Context, too_large},
};

/// Where in a request an event stands.
type Path = fn(usize) -> String;

/// Whose events are published, and where.
struct Of<'a> {
    principal: &'a Principal,
    project: Arc<Project>,
    trace: Option<&'a TraceContext>,
}

/// The role.
#[derive(Clone)]
pub struct Ingest {
    options: Arc<Options>,
    given: Given,
    directory: Directory,
    clock: Clock,
    intake: Arc<dyn Intake>,
    judge: Arc<Judge>,
    streams: Arc<Streams>,
    large: Large,
}

impl Ingest {
    /// Reads projects from the directory and hands events to the intake. Streams end when
    /// `shutdown` is cancelled.
    #[must_use]
    pub fn new(
        options: Options,
        given: Given,
        directory: Directory,
        clock: Clock,
        intake: Arc<dyn Intake>,
        shutdown: CancellationToken,
    ) -> Self {
        measure::expose();
        let judge = Arc::new(Judge::new(&options, directory.clone()));
        let streams = Arc::new(Streams::new(&options, shutdown));
        let large = Large::new(&options);
        Self { options: Arc::new(options), given, directory, clock, intake, judge, streams, large }
    }

    /// The public services.
    #[must_use]
    pub fn routes(self) -> Routes {
        // What it answers is bounded by the number of events in a request. Events that are
        // committed must not be refused by their answer's size.
        let limit = self.given.max_request_bytes;
        Routes::new(IngestServiceServer::new(self).max_decoding_message_size(limit))
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn max_batch_bytes(&self) -> usize {
        self.options.max_batch_bytes
    }

    pub(crate) fn intake(&self) -> &Arc<dyn Intake> {
        &self.intake
    }

    pub(crate) fn judge(&self) -> &Arc<Judge> {
        &self.judge
    }

    pub(crate) fn streams(&self) -> &Arc<Streams> {
        &self.streams
    }

    pub(crate) async fn project(
        &self,
        principal: &Principal,
        project_id: &str,
    ) -> Result<Arc<Project>> {
        let id: ProjectId = parse_id("project_id", project_id)?;
        self.directory.project(principal, id).await
    }

    async fn publish(
        &self,
        principal: &Principal,
        trace: Option<&TraceContext>,
        request: PublishEventRequest,
    ) -> Result<PublishEventResponse> {
        let project = self.project(principal, &request.project_id).await?;
        let event = request.event.ok_or_else(|| Error::field("event", "is required"))?;
        let of = Of { principal, project, trace };
        let answers = self.accept(of, vec![event], |_| "event".to_owned()).await?;
        answers
            .into_iter()
            .next()
            .unwrap_or_else(|| Err(Error::internal("an event was not answered")))
    }

    async fn publish_batch(
        &self,
        principal: &Principal,
        trace: Option<&TraceContext>,
        request: BatchPublishEventsRequest,
    ) -> Result<Vec<Result<PublishEventResponse>>> {
        let project = self.project(principal, &request.project_id).await?;
        let events = request.events;
        if events.is_empty() || events.len() > limits::BATCH_EVENTS {
            let description =
                format!("has {} entries; 1 to {} are allowed", events.len(), limits::BATCH_EVENTS);
            return Err(Error::field("events", description));
        }
        let bytes = events.iter().map(|event| event.payload.len()).sum();
        if bytes > self.options.max_batch_bytes {
            return Err(too_large(
                "events",
                bytes,
                self.options.max_batch_bytes,
                "ingest.max_batch_bytes",
            ));
        }
        self.accept(Of { principal, project, trace }, events, |index| format!("events[{index}]"))
            .await
    }

    /// Answers events in their order; those of a large request when it is their turn. `path` tells
    /// where in the request one stands.
    async fn accept(
        &self,
        of: Of<'_>,
        events: Vec<NewEvent>,
        path: Path,
    ) -> Result<Vec<Result<PublishEventResponse>>> {
        let bytes = events.iter().map(|event| event.payload.len()).sum();
        if self.large.is_large(bytes, events.len()) {
            // Boxed: small requests are not to be as large as this.
            Box::pin(self.accept_in_turn(of, events, path)).await
        } else {
            let asker = Asker::Call(Holder::within(of.principal, of.project.id));
            self.accept_now(of, asker, events, path).await
        }
    }

    /// Apart, with the turn: it has to do with the work, whether or not somebody still waits for
    /// it.
    async fn accept_in_turn(
        &self,
        of: Of<'_>,
        events: Vec<NewEvent>,
        path: Path,
    ) -> Result<Vec<Result<PublishEventResponse>>> {
        let turn = self.large.take(Holder::within(of.principal, of.project.id)).await?;
        let (ingest, principal, trace) = (self.clone(), of.principal.clone(), of.trace.cloned());
        let work = async move {
            let _turn = turn;
            let of = Of { principal: &principal, project: of.project, trace: trace.as_ref() };
            ingest.accept_now(of, Asker::InTurn, events, path).await
        };
        tokio::spawn(work.in_current_span())
            .await
            .unwrap_or_else(|_| Err(Error::internal("a fault of the server")))
    }

    async fn accept_now(
        &self,
        of: Of<'_>,
        asker: Asker,
        events: Vec<NewEvent>,
        path: Path,
    ) -> Result<Vec<Result<PublishEventResponse>>> {
        let context = self.context(of.principal, &of.project, of.trace);
        let checked = events.into_iter().map(|event| validate::event(event, &context)).collect();
        admit::admit(&self.judge, &*self.intake, &of.project, asker, checked, path).await
    }

    pub(crate) fn large(&self) -> &Large {
        &self.large
    }

    pub(crate) fn context<'a>(
        &'a self,
        principal: &'a Principal,
        project: &'a Project,
        trace: Option<&'a TraceContext>,
    ) -> Context<'a> {
        Context { principal, project, now: self.clock.now(), options: &self.options, trace }
    }
}

#[async_trait]
impl IngestService for Ingest {
    async fn publish_event(
        &self,
        request: Request<PublishEventRequest>,
    ) -> Result<Response<PublishEventResponse>, Status> {
        let principal = principal(&request)?;
        let trace = request.extensions().get::<TraceContext>().cloned();
        let answer = self.publish(&principal, trace.as_ref(), request.into_inner()).await;
        measure::one(&answer);
        answer.map(Response::new).map_err(to_status)
    }

    async fn batch_publish_events(
        &self,
        request: Request<BatchPublishEventsRequest>,
    ) -> Result<Response<BatchPublishEventsResponse>, Status> {
        let principal = principal(&request)?;
        let trace = request.extensions().get::<TraceContext>().cloned();
        let events = request.get_ref().events.len();
        let answers = self.publish_batch(&principal, trace.as_ref(), request.into_inner()).await;
        measure::batch(events, &answers);
        let result = |answer: Result<PublishEventResponse>| BatchPublishEventsResult {
            result: Some(answer.map_or_else(
                |error| ItemResult::Error(status::to_message(error)),
                ItemResult::Accepted,
            )),
        };
        let results = answers.map_err(to_status)?.into_iter().map(result).collect();
        Ok(Response::new(BatchPublishEventsResponse { results }))
    }

    type StreamEventsStream = stream::Answer;

    async fn stream_events(
        &self,
        request: Request<Streaming<StreamEventsRequest>>,
    ) -> Result<Response<stream::Answer>, Status> {
        let principal = principal(&request)?;
        stream::answer(self.clone(), principal, request.into_inner())
            .map(Response::new)
            .map_err(to_status)
    }
}
