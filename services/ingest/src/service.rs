//! The gRPC face of ingest.

use std::sync::Arc;

use async_trait::async_trait;
use outrider_model::{Error, Principal, Project, ProjectId, Result, limits};
use outrider_proto::{
    ingest::{
        BatchPublishEventsRequest, BatchPublishEventsResponse, BatchPublishEventsResult, PublishEventRequest,
        PublishEventResponse, StreamEventsRequest,
        batch_publish_events_result::Result as ItemResult,
        ingest_service_server::{IngestService, IngestServiceServer},
    },
    internal::{AcceptEvent, AcceptEventResult, AcceptedEvent, accept_event_result},
};
use outrider_rpc::{Intake, convert::parse_id, principal, status, to_status};
use outrider_store::{Clock, Directory};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, service::Routes};

use crate::{
    Options, StreamOptions,
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
        let streams = Arc::new(Streams::new(&options.stream, shutdown));
        Self { options: Arc::new(options), directory, clock, intake, streams }
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

    pub(crate) fn streams(&self) -> &Arc<Streams> {
        &self.streams
    }

    pub(crate) async fn project(&self, principal: &Principal, project_id: &str) -> Result<Arc<Project>> {
        let id: ProjectId = parse_id("project_id", project_id)?;
        self.directory.project(principal, id).await
    }

    async fn publish(&self, principal: &Principal, request: PublishEventRequest) -> Result<PublishEventResponse> {
        let project = self.project(principal, &request.project_id).await?;
        let event = request.event.ok_or_else(|| Error::field("event", "is required"))?;
        let event = validate::event(event, &self.context(principal, &project)).map_err(|error| error.within("event"))?;
        let results = self.intake.accept(vec![event]).await?;
        published(results.into_iter().next())
    }

    async fn publish_batch(
        &self,
        principal: &Principal,
        request: BatchPublishEventsRequest,
    ) -> Result<BatchPublishEventsResponse> {
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
        let context = self.context(principal, &project);
        let checked: Vec<Result<AcceptEvent>> = events
            .into_iter()
            .enumerate()
            .map(|(index, event)| validate::event(event, &context).map_err(|error| error.within(&format!("events[{index}]"))))
            .collect();
        self.accept_good(checked).await
    }

    /// Hands on what is good, all at once, and puts the answers where they belong among the refusals.
    async fn accept_good(&self, checked: Vec<Result<AcceptEvent>>) -> Result<BatchPublishEventsResponse> {
        let mut good = Vec::new();
        let refusals: Vec<Option<Error>> = checked
            .into_iter()
            .map(|event| match event {
                Ok(event) => {
                    good.push(event);
                    None
                }
                Err(error) => Some(error),
            })
            .collect();
        let accepted = if good.is_empty() { Vec::new() } else { self.intake.accept(good).await? };
        let mut accepted = accepted.into_iter();
        let results = refusals
            .into_iter()
            .map(|refusal| refusal.map_or_else(|| published(accepted.next()), Err))
            .map(|outcome| BatchPublishEventsResult {
                result: Some(match outcome {
                    Ok(response) => ItemResult::Accepted(response),
                    Err(error) => ItemResult::Error(status::to_message(error)),
                }),
            })
            .collect();
        Ok(BatchPublishEventsResponse { results })
    }

    pub(crate) fn context<'a>(&'a self, principal: &'a Principal, project: &'a Project) -> Context<'a> {
        Context { principal, project, now: self.clock.now(), options: &self.options }
    }
}

/// From dispatch's result to the public answer.
pub(crate) fn published(result: Option<AcceptEventResult>) -> Result<PublishEventResponse> {
    match result.and_then(|result| result.result) {
        Some(accept_event_result::Result::Accepted(AcceptedEvent { event_id, duplicate, delivery_count, create_time })) => {
            Ok(PublishEventResponse { event_id, duplicate, delivery_count, create_time })
        }
        Some(accept_event_result::Result::Error(error)) => Err(status::from_message(&error)),
        None => Err(Error::internal("dispatch answered without a result")),
    }
}

#[async_trait]
impl IngestService for Ingest {
    async fn publish_event(&self, request: Request<PublishEventRequest>) -> Result<Response<PublishEventResponse>, Status> {
        let principal = principal(&request)?;
        self.publish(&principal, request.into_inner()).await.map(Response::new).map_err(to_status)
    }

    async fn batch_publish_events(
        &self,
        request: Request<BatchPublishEventsRequest>,
    ) -> Result<Response<BatchPublishEventsResponse>, Status> {
        let principal = principal(&request)?;
        self.publish_batch(&principal, request.into_inner()).await.map(Response::new).map_err(to_status)
    }

    type StreamEventsStream = stream::Answer;

    async fn stream_events(&self, request: Request<Streaming<StreamEventsRequest>>) -> Result<Response<stream::Answer>, Status> {
        let principal = principal(&request)?;
        stream::answer(self.clone(), principal, request.into_inner()).map(Response::new).map_err(to_status)
    }
}
