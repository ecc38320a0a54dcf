//! The gRPC services of ingest.

use std::sync::Arc;

use async_trait::async_trait;
use outrider_model::{Error, Principal, Result, limits};
use outrider_proto::ingest::{
    BatchPublishEventsRequest, BatchPublishEventsResponse, BatchPublishEventsResult,
    PublishEventRequest, PublishEventResponse, StreamEventsRequest,
    batch_publish_events_result::Result as ItemResult,
    ingest_service_server::{IngestService, IngestServiceServer},
};
use outrider_rpc::{Intake, principal, status, to_status};
use outrider_store::{Clock, Directory};
use outrider_telemetry::TraceContext;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, service::Routes};

use crate::{
    admission::{Admission, Publisher, metrics, validate::too_large},
    options::{Given, Options},
    stream::{self, Streams},
};

/// The role.
#[derive(Clone)]
pub struct Ingest {
    pub(crate) admission: Admission,
    pub(crate) streams: Arc<Streams>,
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
        let streams = Arc::new(Streams::new(&options, shutdown));
        Self { admission: Admission::new(options, given, directory, clock, intake), streams }
    }

    /// Returns the public services.
    #[must_use]
    pub fn routes(self) -> Routes {
        // Answers are bounded by the number of events in a request. Committed events must not fail
        // because of the size of their answer.
        let limit = self.admission.given().max_request_bytes;
        Routes::new(IngestServiceServer::new(self).max_decoding_message_size(limit))
    }

    async fn publish(
        &self,
        principal: &Principal,
        trace: Option<&TraceContext>,
        request: PublishEventRequest,
    ) -> Result<PublishEventResponse> {
        let project = self.admission.project(principal, &request.project_id).await?;
        let event = request.event.ok_or_else(|| Error::field("event", "is required"))?;
        let publisher = Publisher { principal, project, trace };
        let answers = self.admission.accept(publisher, vec![event], |_| "event".to_owned()).await?;
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
        let project = self.admission.project(principal, &request.project_id).await?;
        let events = request.events;
        if events.is_empty() || events.len() > limits::BATCH_EVENTS {
            let description =
                format!("has {} entries; 1 to {} are allowed", events.len(), limits::BATCH_EVENTS);
            return Err(Error::field("events", description));
        }
        let bytes = events.iter().map(|event| event.payload.len()).sum();
        let limit = self.admission.options().max_batch_bytes;
        if bytes > limit {
            return Err(too_large("events", bytes, limit, "ingest.max_batch_bytes"));
        }
        let publisher = Publisher { principal, project, trace };
        self.admission.accept(publisher, events, |index| format!("events[{index}]")).await
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
        metrics::one(&answer);
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
        metrics::batch(events, &answers);
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
        let (admission, streams) = (self.admission.clone(), &self.streams);
        stream::answer(admission, streams, principal, request.into_inner())
            .map(Response::new)
            .map_err(to_status)
    }
}
