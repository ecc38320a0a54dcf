//! The gRPC face of ingest.

use std::sync::Arc;

use async_trait::async_trait;
use outrider_model::{Error, Principal, Project, ProjectId, Result, limits};
use outrider_proto::ingest::{
    BatchPublishEventsRequest, BatchPublishEventsResponse, BatchPublishEventsResult, PublishEventRequest, PublishEventResponse,
    StreamEventsRequest,
    batch_publish_events_result::Result as ItemResult,
    ingest_service_server::{IngestService, IngestServiceServer},
};
use outrider_rpc::{Intake, convert::parse_id, principal, status, to_status};
use outrider_store::{Clock, Directory};
use outrider_telemetry::TraceContext;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, service::Routes};

use crate::{
    Options, StreamOptions, admit,
    judge::Judge,
    measure,
    stream::{self, Streams},
    validate::{self, Context, too_large},
};

/// The role.
#[derive(Clone)]
pub struct Ingest {
    options: Arc<Options>,
    directory: Directory,
    clock: Clock,
    intake: Arc<dyn Intake>,
    judge: Arc<Judge>,
    streams: Arc<Streams>,
}

impl Ingest {
    /// Reads projects from the directory and hands events to the intake. Streams end when `shutdown` is cancelled.
    #[must_use]
    pub fn new(
        options: Options,
        directory: Directory,
        clock: Clock,
        intake: Arc<dyn Intake>,
        shutdown: CancellationToken,
    ) -> Self {
        measure::expose();
        let judge = Arc::new(Judge::new(&options, directory.clone()));
        let streams = Arc::new(Streams::new(&options.stream, shutdown));
        Self { options: Arc::new(options), directory, clock, intake, judge, streams }
    }

    /// The public services.
    #[must_use]
    pub fn routes(self) -> Routes {
        let limit = self.options.max_request_bytes;
        Routes::new(IngestServiceServer::new(self).max_decoding_message_size(limit).max_encoding_message_size(limit))
    }

    pub(crate) fn stream_options(&self) -> &StreamOptions {
        &self.options.stream
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

    pub(crate) async fn project(&self, principal: &Principal, project_id: &str) -> Result<Arc<Project>> {
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
        let checked = validate::event(event, &self.context(principal, &project, trace));
        let answers = admit::admit(&self.judge, &*self.intake, &project, vec![checked], |_| "event".to_owned()).await?;
        answers.into_iter().next().unwrap_or_else(|| Err(Error::internal("an event was not answered")))
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
            let description = format!("has {} entries; 1 to {} are allowed", events.len(), limits::BATCH_EVENTS);
            return Err(Error::field("events", description));
        }
        let bytes = events.iter().map(|event| event.payload.len()).sum();
        if bytes > self.options.max_batch_bytes {
            return Err(too_large("events", bytes, self.options.max_batch_bytes));
        }
        let context = self.context(principal, &project, trace);
        let checked = events.into_iter().map(|event| validate::event(event, &context)).collect();
        admit::admit(&self.judge, &*self.intake, &project, checked, |index| format!("events[{index}]")).await
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
    async fn publish_event(&self, request: Request<PublishEventRequest>) -> Result<Response<PublishEventResponse>, Status> {
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
            result: Some(answer.map_or_else(|error| ItemResult::Error(status::to_message(error)), ItemResult::Accepted)),
        };
        let results = answers.map_err(to_status)?.into_iter().map(result).collect();
        Ok(Response::new(BatchPublishEventsResponse { results }))
    }

    type StreamEventsStream = stream::Answer;

    async fn stream_events(&self, request: Request<Streaming<StreamEventsRequest>>) -> Result<Response<stream::Answer>, Status> {
        let principal = principal(&request)?;
        stream::answer(self.clone(), principal, request.into_inner()).map(Response::new).map_err(to_status)
    }
}
