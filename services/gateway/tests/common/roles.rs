//! The roles. The name of the project decides how they answer.

use std::{pin::Pin, sync::atomic::Ordering, time::Duration};

use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use outrider_model::{Error, Reason};
use outrider_proto::{
    admin::{endpoint_service_server::EndpointService, *},
    dispatch::{delivery_service_server::DeliveryService, event_service_server::EventService, *},
    ingest::{ingest_service_server::IngestService, *},
};
use outrider_rpc::{status::to_message, to_status};
use tonic::{Request, Response, Status, Streaming};

use super::Recorder;

pub struct Ingest(pub Recorder);
pub struct Dispatch(pub Recorder);
pub struct Admin(pub Recorder);

type Answer<T> = Result<Response<T>, Status>;

async fn by_project(project: &str) -> Result<(), Status> {
    let error = match project {
        "no_key" => Error::new(Reason::MissingCredentials, "send a key"),
        "missing" => Error::not_found("project"),
        "bad" => Error::field("event.event_type", "is required"),
        "bad_payload" => Error::field("event.payload", "must be JSON"),
        "full" => {
            Error { retry_after: Some(Duration::from_millis(1500)), ..Error::overloaded("full") }
        }
        "panics" => panic!("as the test wants it"),
        "hangs" => return std::future::pending().await,
        _ => return Ok(()),
    };
    Err(to_status(error))
}

#[tonic::async_trait]
impl IngestService for Ingest {
    async fn publish_event(
        &self,
        request: Request<PublishEventRequest>,
    ) -> Answer<PublishEventResponse> {
        self.0.add(&request);
        by_project(&request.get_ref().project_id).await?;
        Ok(Response::new(PublishEventResponse { event_id: "evt_1".into(), ..Default::default() }))
    }

    async fn batch_publish_events(
        &self,
        request: Request<BatchPublishEventsRequest>,
    ) -> Answer<BatchPublishEventsResponse> {
        self.0.add(&request);
        let accepted = PublishEventResponse { event_id: "evt_1".into(), ..Default::default() };
        let results = [
            batch_publish_events_result::Result::Accepted(accepted),
            batch_publish_events_result::Result::Error(to_message(Error::field(
                "events[1].event_type",
                "is required",
            ))),
        ];
        let results =
            results.map(|result| BatchPublishEventsResult { result: Some(result) }).to_vec();
        Ok(Response::new(BatchPublishEventsResponse { results }))
    }

    type StreamEventsStream =
        Pin<Box<dyn Stream<Item = Result<StreamEventsResponse, Status>> + Send>>;

    /// Acknowledges each event, and ends well when the client does.
    async fn stream_events(
        &self,
        request: Request<Streaming<StreamEventsRequest>>,
    ) -> Answer<Self::StreamEventsStream> {
        let open = Open::new(&self.0);
        let counted = move |message| {
            // Held for as long as the stream lives.
            let _ = &open;
            message
        };
        let acks = request.into_inner().map(counted).filter_map(|message| async {
            match message {
                Ok(StreamEventsRequest {
                    kind: Some(stream_events_request::Kind::Event(StreamedEvent { sequence, .. })),
                }) => {
                    let ack = StreamAck { sequence, ..StreamAck::default() };
                    Some(Ok(StreamEventsResponse {
                        kind: Some(stream_events_response::Kind::Ack(ack)),
                    }))
                }
                // Stops reading.
                Ok(StreamEventsRequest { kind: Some(stream_events_request::Kind::Open(open)) })
                    if open.project_id == "hangs" =>
                {
                    std::future::pending().await
                }
                Ok(_) => None,
                Err(status) => Some(Err(status)),
            }
        });
        Ok(Response::new(Box::pin(acks)))
    }
}

#[tonic::async_trait]
impl EventService for Dispatch {
    async fn get_event(&self, request: Request<GetEventRequest>) -> Answer<GetEventResponse> {
        self.0.add(&request);
        let payload = match request.get_ref().project_id.as_str() {
            "large" => format!("\"{}\"", "x".repeat(1 << 20)),
            _ => r#"{"a":1.0,  "b":1e400}"#.to_owned(),
        };
        let event = Event {
            event_id: request.into_inner().event_id,
            payload: payload.into(),
            content_type: "application/json".into(),
            ..Default::default()
        };
        Ok(Response::new(GetEventResponse { event: Some(event) }))
    }

    async fn list_events(&self, request: Request<ListEventsRequest>) -> Answer<ListEventsResponse> {
        self.0.add(&request);
        Ok(Response::new(ListEventsResponse::default()))
    }

    async fn erase_payload(
        &self,
        request: Request<ErasePayloadRequest>,
    ) -> Answer<ErasePayloadResponse> {
        self.0.add(&request);
        Ok(Response::new(ErasePayloadResponse::default()))
    }

    type TailEventsStream = BoxStream<'static, Result<TailEventsResponse, Status>>;

    async fn tail_events(
        &self,
        request: Request<TailEventsRequest>,
    ) -> Answer<Self::TailEventsStream> {
        self.0.add(&request);
        by_project(&request.get_ref().project_id).await?;
        Ok(Response::new(tail(&self.0, &request.get_ref().project_id)))
    }
}

/// Counts a stream while it is open.
struct Open(Recorder);

impl Open {
    fn new(recorder: &Recorder) -> Self {
        recorder.1.fetch_add(1, Ordering::SeqCst);
        Self(recorder.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.1.fetch_sub(1, Ordering::SeqCst);
    }
}

fn heartbeat(cursor: &str) -> TailEventsResponse {
    let update = tail_events_response::Update::Heartbeat(TailHeartbeat { time: None });
    TailEventsResponse { cursor: cursor.into(), update: Some(update) }
}

/// Sends a heartbeat, an event whose payload has several lines, and then what the project's name
/// decides.
fn tail(
    recorder: &Recorder,
    project: &str,
) -> BoxStream<'static, Result<TailEventsResponse, Status>> {
    let open = Open::new(recorder);
    let content_type = "application/json".into();
    let event = Event {
        event_id: "evt_1".into(),
        payload: "{\r\n\"a\": 1.0\n}".into(),
        content_type,
        ..Default::default()
    };
    let event = TailEventsResponse {
        cursor: "c1".into(),
        update: Some(tail_events_response::Update::Event(event)),
    };
    let begin = stream::iter([Ok(heartbeat("c0")), Ok(event)]);
    let rest = match project {
        "ends" => stream::empty().boxed(),
        "fails" => {
            stream::iter([Err(to_status(Error::new(Reason::InvalidCredentials, "revoked")))])
                .boxed()
        }
        "large" => stream::repeat_with(|| Ok(heartbeat(&"x".repeat(4_096)))).boxed(),
        _ => stream::pending().boxed(),
    };
    let counted = move |message| {
        // Held for as long as the stream lives.
        let _ = &open;
        message
    };
    begin.chain(rest).map(counted).boxed()
}

#[tonic::async_trait]
impl DeliveryService for Dispatch {
    async fn get_delivery(
        &self,
        request: Request<GetDeliveryRequest>,
    ) -> Answer<GetDeliveryResponse> {
        self.0.add(&request);
        Ok(Response::new(GetDeliveryResponse::default()))
    }

    async fn list_deliveries(
        &self,
        request: Request<ListDeliveriesRequest>,
    ) -> Answer<ListDeliveriesResponse> {
        self.0.add(&request);
        Ok(Response::new(ListDeliveriesResponse::default()))
    }

    async fn retry_delivery(
        &self,
        request: Request<RetryDeliveryRequest>,
    ) -> Answer<RetryDeliveryResponse> {
        self.0.add(&request);
        let delivery =
            Delivery { delivery_id: request.into_inner().delivery_id, ..Default::default() };
        Ok(Response::new(RetryDeliveryResponse { delivery: Some(delivery) }))
    }

    async fn get_delivery_attempt(
        &self,
        request: Request<GetDeliveryAttemptRequest>,
    ) -> Answer<GetDeliveryAttemptResponse> {
        self.0.add(&request);
        Ok(Response::new(GetDeliveryAttemptResponse::default()))
    }

    type TailDeliveriesStream = BoxStream<'static, Result<TailDeliveriesResponse, Status>>;

    async fn tail_deliveries(
        &self,
        request: Request<TailDeliveriesRequest>,
    ) -> Answer<Self::TailDeliveriesStream> {
        self.0.add(&request);
        let update = DeliveryUpdate { delivery: Some(Delivery::default()), attempt: None };
        let update = Some(tail_deliveries_response::Update::Delivery(update));
        let message = TailDeliveriesResponse { cursor: "c".into(), update };
        Ok(Response::new(stream::iter([Ok(message)]).boxed()))
    }

    async fn list_delivery_attempts(
        &self,
        request: Request<ListDeliveryAttemptsRequest>,
    ) -> Answer<ListDeliveryAttemptsResponse> {
        self.0.add(&request);
        Ok(Response::new(ListDeliveryAttemptsResponse::default()))
    }
}

#[tonic::async_trait]
impl EndpointService for Admin {
    async fn create_endpoint(
        &self,
        request: Request<CreateEndpointRequest>,
    ) -> Answer<CreateEndpointResponse> {
        self.0.add(&request);
        Ok(Response::new(CreateEndpointResponse {
            endpoint: request.into_inner().endpoint,
            secret: "whsec_x".into(),
        }))
    }

    async fn get_endpoint(
        &self,
        request: Request<GetEndpointRequest>,
    ) -> Answer<GetEndpointResponse> {
        self.0.add(&request);
        by_project(&request.get_ref().project_id).await?;
        let endpoint =
            Endpoint { endpoint_id: request.into_inner().endpoint_id, ..Default::default() };
        Ok(Response::new(GetEndpointResponse { endpoint: Some(endpoint) }))
    }

    async fn list_endpoints(
        &self,
        request: Request<ListEndpointsRequest>,
    ) -> Answer<ListEndpointsResponse> {
        self.0.add(&request);
        Ok(Response::new(ListEndpointsResponse::default()))
    }

    async fn update_endpoint(
        &self,
        request: Request<UpdateEndpointRequest>,
    ) -> Answer<UpdateEndpointResponse> {
        self.0.add(&request);
        Ok(Response::new(UpdateEndpointResponse { endpoint: request.into_inner().endpoint }))
    }

    async fn delete_endpoint(
        &self,
        request: Request<DeleteEndpointRequest>,
    ) -> Answer<DeleteEndpointResponse> {
        self.0.add(&request);
        Ok(Response::new(DeleteEndpointResponse {}))
    }

    async fn get_endpoint_secret(
        &self,
        request: Request<GetEndpointSecretRequest>,
    ) -> Answer<GetEndpointSecretResponse> {
        self.0.add(&request);
        Ok(Response::new(GetEndpointSecretResponse::default()))
    }
}
