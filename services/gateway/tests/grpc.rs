//! gRPC through the gateway, to roles in this process and in another one.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use common::{BEARER, Keyed, Running, backends, framed, keyed, remote};
use outrider_gateway::{Backends, Gateway, Options};
use outrider_model::Reason;
use outrider_proto::{
    DESCRIPTORS,
    ingest::{self, ingest_service_client::IngestServiceClient},
    internal::{self, intake_service_client::IntakeServiceClient},
};
use outrider_rpc::{from_status, methods};
use tonic::{Code, Request};

fn publish(project: &str) -> ingest::PublishEventRequest {
    let event =
        ingest::NewEvent { event_type: "a".into(), payload: "{ }".into(), ..Default::default() };
    ingest::PublishEventRequest { project_id: project.into(), event: Some(event) }
}

async fn client(running: &Running) -> IngestServiceClient<Keyed> {
    IngestServiceClient::new(keyed(running.address).await)
}

#[tokio::test]
async fn unary_calls_pass_with_their_metadata_and_errors() {
    let running = Running::start().await;
    let mut client = client(&running).await;
    let mut request = Request::new(publish("p"));
    request.metadata_mut().insert("x-request-id", "mine".parse().unwrap());
    let answer = client.publish_event(request).await.unwrap();
    assert_eq!(answer.metadata().get("x-request-id").unwrap(), "mine");
    assert_eq!(answer.into_inner().event_id, "evt_1");
    assert_eq!(running.got.last::<ingest::PublishEventRequest>(), publish("p"));
    let call = running.got.calls().pop().unwrap();
    assert_eq!(
        (call.authorization.as_deref(), call.request_id.as_deref()),
        (Some(BEARER), Some("mine"))
    );

    let error = from_status(&client.publish_event(publish("bad")).await.unwrap_err());
    assert_eq!(
        (error.reason, error.violations[0].field.as_str()),
        (Reason::InvalidField, "event.event_type")
    );
    let error = client.publish_event(publish("panics")).await.unwrap_err();
    assert_eq!(from_status(&error).reason, Reason::Internal);
}

#[tokio::test]
async fn services_between_roles_are_not_reachable() {
    let running = Running::start().await;
    let mut client =
        IntakeServiceClient::connect(format!("http://{}", running.address)).await.unwrap();
    let status = client.accept_events(internal::AcceptEventsRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert_eq!(from_status(&status).reason, Reason::UnknownMethod);
    running.post("/outrider.internal.v1.IntakeService/AcceptEvents", "{}").await.is_refused(
        404,
        "UNKNOWN_METHOD",
        "",
    );
}

#[tokio::test]
async fn a_role_in_another_process_is_the_same() {
    // A gateway is a gRPC server too, so it stands in for the other process.
    let far = Running::start().await;
    let backend = remote(far.address);
    let backends = Backends { ingest: backend.clone(), dispatch: backend.clone(), admin: backend };
    let near = Running::before(Options::default(), backends, far.got.clone()).await;
    assert_eq!(near.post("/v1/projects/p/events", r#"{"data":1}"#).await.status, 200);
    near.post("/v1/projects/bad/events", r#"{"data":1}"#).await.is_refused(
        400,
        "INVALID_FIELD",
        "event.event_type",
    );
    assert_eq!(
        client(&near).await.publish_event(publish("p")).await.unwrap().into_inner().event_id,
        "evt_1"
    );
}

#[tokio::test]
async fn a_role_that_is_away_is_unavailable() {
    let unused = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let backend = remote(unused);
    let backends = Backends { ingest: backend.clone(), dispatch: backend.clone(), admin: backend };
    let running = Running::before(Options::default(), backends, Default::default()).await;
    let answer = running.post("/v1/projects/p/events", "{}").await;
    answer.is_refused(503, "UNAVAILABLE", "");
    assert_eq!(answer.headers["retry-after"], "1");
    assert!(!answer.text.contains(&unused.port().to_string()), "an address of the inside is shown");
    let status = client(&running).await.publish_event(publish("p")).await.unwrap_err();
    assert_eq!(from_status(&status).reason, Reason::Unavailable);
}

#[tokio::test]
async fn every_public_unary_method_has_a_route_of_its_own() {
    let gateway = Gateway::new(
        Options::default(),
        outrider_gateway::Given::default(),
        backends(&Default::default()),
        std::sync::Arc::new(common::Keys),
    )
    .unwrap();
    let routes = gateway.routes().collect::<Vec<_>>();
    assert!(routes.contains(&("POST", "/v1/projects/{project_id}/events:batch")), "{routes:?}");
    let http = DESCRIPTORS.get_extension_by_name("google.api.http").unwrap();
    let mut count = 0;
    for service in methods::public_services() {
        for method in service
            .methods()
            .filter(|method| !method.is_client_streaming() && !method.is_server_streaming())
        {
            assert!(method.options().has_extension(&http), "{} has no route", method.full_name());
            count += 1;
        }
    }
    assert!(count > 20 && routes.len() >= count, "{count} methods, {} routes", routes.len());
}

#[tokio::test]
async fn a_stream_of_the_client_ends_at_the_drain_with_all_that_came_answered() {
    for from_another_process in [false, true] {
        let mut near = match from_another_process {
            true => Running::apart(Options::default()).await,
            false => Running::start().await,
        };
        let (sender, messages) = tokio::sync::mpsc::channel(8);
        let outbound = tokio_stream::wrappers::ReceiverStream::new(messages);
        let event = |sequence| {
            let event = ingest::StreamedEvent { sequence, ..ingest::StreamedEvent::default() };
            ingest::StreamEventsRequest {
                kind: Some(ingest::stream_events_request::Kind::Event(event)),
            }
        };
        let mut inbound = client(&near).await.stream_events(outbound).await.unwrap().into_inner();
        for sequence in 1..=3 {
            sender.send(event(sequence)).await.unwrap();
            let ingest::stream_events_response::Kind::Ack(ack) =
                inbound.message().await.unwrap().unwrap().kind.unwrap()
            else {
                panic!("no ack")
            };
            assert_eq!(ack.sequence, sequence);
        }
        near.shut_down();
        let status =
            tokio::time::timeout(common::LONG, inbound.message()).await.unwrap().unwrap_err();
        let error = from_status(&status);
        assert_eq!(
            (status.code(), error.reason, error.retry_after.is_some()),
            (Code::Unavailable, Reason::ShuttingDown, true)
        );
        tokio::time::timeout(common::LONG / 4, near.served)
            .await
            .expect("well before its drain time")
            .unwrap();
        // The client's side was open all the time.
        drop(sender);
    }
}

#[tokio::test]
async fn a_window_of_small_events_in_frames_of_their_own_may_wait_unread() {
    let running = Running::start().await;
    let io = hyper_util::rt::TokioIo::new(
        tokio::net::TcpStream::connect(running.address).await.unwrap(),
    );
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io)
            .await
            .unwrap();
    tokio::spawn(connection);
    let (out, messages) = tokio::sync::mpsc::channel::<bytes::Bytes>(1);
    let frames =
        futures::StreamExt::map(tokio_stream::wrappers::ReceiverStream::new(messages), |bytes| {
            Ok::<_, std::convert::Infallible>(hyper::body::Frame::data(bytes))
        });
    let uri = |path: &str| format!("http://{}{path}", running.address);
    let request = http::Request::post(uri("/outrider.ingest.v1.IngestService/StreamEvents"))
        .header("authorization", BEARER)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(http_body_util::StreamBody::new(frames)))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let kind = ingest::stream_events_request::Kind::Open(ingest::StreamOpen {
        project_id: "hangs".into(),
        ..Default::default()
    });
    out.send(framed(&ingest::StreamEventsRequest { kind: Some(kind) })).await.unwrap();
    for sequence in 1..=4_096 {
        let event = ingest::StreamedEvent { sequence, ..ingest::StreamedEvent::default() };
        let message = ingest::StreamEventsRequest {
            kind: Some(ingest::stream_events_request::Kind::Event(event)),
        };
        tokio::time::timeout(common::LONG, out.send(framed(&message)))
            .await
            .unwrap()
            .expect("the connection is fine");
    }
    // The request after them on the connection is answered.
    let other = http::Request::get(uri("/version")).body(tonic::body::Body::empty()).unwrap();
    let version =
        tokio::time::timeout(common::LONG, sender.send_request(other)).await.unwrap().unwrap();
    assert_eq!((version.status(), answer.status()), (http::StatusCode::OK, http::StatusCode::OK));
}
