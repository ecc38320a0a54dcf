//! Health and reflection, and the deadlines that clients ask for.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use std::time::Duration;

use common::{LONG, Running, request};
use outrider_gateway::Options;
use outrider_model::Reason;
use outrider_proto::ingest::{self, ingest_service_client::IngestServiceClient};
use outrider_rpc::{from_status, methods};
use tokio::time::timeout;
use tonic::{Code, Request, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

async fn channel(running: &Running) -> Channel {
    tonic::transport::Endpoint::from_shared(format!("http://{}", running.address))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

#[tokio::test]
async fn the_server_and_every_public_service_are_healthy_until_the_shutdown() {
    let mut running = Running::start().await;
    let mut client = HealthClient::new(channel(&running).await);
    let names = methods::public_services()
        .map(|service| service.full_name().to_owned())
        .chain([String::new()]);
    for name in names {
        assert_eq!(client.check(of(&name)).await.unwrap().into_inner().status, 1, "{name}");
    }
    for name in ["outrider.internal.v1.IntakeService", "x"] {
        assert_eq!(client.check(of(name)).await.unwrap_err().code(), Code::NotFound, "{name}");
    }
    let mut watch =
        client.watch(of("outrider.ingest.v1.IngestService")).await.unwrap().into_inner();
    let mut unknown = client.watch(of("x")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    assert_eq!(unknown.message().await.unwrap().unwrap().status, 3);
    running.shut_down();
    assert_eq!(timeout(LONG, watch.message()).await.unwrap().unwrap().unwrap().status, 2);
    assert!(timeout(LONG, watch.message()).await.unwrap().unwrap().is_none());
    assert!(running.got.calls().is_empty());
}

async fn ask(running: &Running, request: MessageRequest) -> Result<MessageResponse, tonic::Status> {
    let mut client = ServerReflectionClient::new(channel(running).await);
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let mut answers =
        client.server_reflection_info(tokio_stream::once(request)).await?.into_inner();
    Ok(answers.message().await?.unwrap().message_response.unwrap())
}

#[tokio::test]
async fn reflection_shows_what_is_public_when_it_is_on() {
    let running = Running::with(Options { reflection: true, ..Options::default() }).await;
    let MessageResponse::ListServicesResponse(list) =
        ask(&running, MessageRequest::ListServices(String::new())).await.unwrap()
    else {
        panic!("no list")
    };
    let mut names = list.service.into_iter().map(|service| service.name).collect::<Vec<_>>();
    names.sort_unstable();
    let mut expected = methods::public_services()
        .map(|service| service.full_name().to_owned())
        .collect::<Vec<_>>();
    expected.extend([
        "grpc.health.v1.Health".to_owned(),
        "grpc.reflection.v1.ServerReflection".to_owned(),
    ]);
    expected.sort_unstable();
    assert_eq!(names, expected);
    let symbol = |name: &str| MessageRequest::FileContainingSymbol(name.to_owned());
    let found = ask(&running, symbol("outrider.dispatch.v1.Event")).await.unwrap();
    let MessageResponse::FileDescriptorResponse(files) = found else { panic!("{found:?}") };
    assert!(!files.file_descriptor_proto.is_empty());
    let inside = ask(&running, symbol("outrider.internal.v1.IntakeService")).await;
    assert!(!matches!(inside, Ok(MessageResponse::FileDescriptorResponse(_))), "{inside:?}");
}

#[tokio::test]
async fn reflection_is_off_unless_it_is_asked_for() {
    let running = Running::start().await;
    let refused = ask(&running, MessageRequest::ListServices(String::new())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
}

fn hanging() -> Request<ingest::PublishEventRequest> {
    Request::new(ingest::PublishEventRequest { project_id: "hangs".into(), event: None })
}

#[tokio::test]
async fn rest_clients_choose_how_long_they_wait() {
    let running = Running::start().await;
    let send = async |text: &str| {
        let mut publish = request("POST", "/v1/projects/hangs/events", Some("{}"));
        publish.headers_mut().insert("request-timeout", text.parse().unwrap());
        running.send(publish).await
    };
    timeout(LONG, send("0.05")).await.unwrap().is_refused(504, "DEADLINE_EXCEEDED", "");
    send("soon").await.is_refused(400, "MALFORMED_REQUEST", "request-timeout");
    // Not longer than the server permits.
    let running =
        Running::with(Options { request_timeout: Duration::from_millis(50), ..Options::default() })
            .await;
    let mut publish = request("POST", "/v1/projects/hangs/events", Some("{}"));
    publish.headers_mut().insert("request-timeout", "3600".parse().unwrap());
    timeout(LONG, running.send(publish)).await.unwrap().is_refused(504, "DEADLINE_EXCEEDED", "");
}

#[tokio::test]
async fn grpc_streams_end_when_their_client_wanted_it() {
    let running = Running::start().await;
    let channel = channel(&running).await;
    let mut client = IngestServiceClient::new(common::keyed(running.address).await);
    // Tested over gRPC-web, because tonic's gRPC client would cut the call itself.
    let mut request = hanging();
    request.metadata_mut().insert("grpc-timeout", "soon".parse().unwrap());
    let error = from_status(&client.publish_event(request).await.unwrap_err());
    assert_eq!(
        (error.reason, error.violations[0].field.as_str()),
        (Reason::MalformedRequest, "grpc-timeout")
    );

    let mut request = Request::new(of(""));
    request.metadata_mut().insert("grpc-timeout", "200m".parse().unwrap());
    let mut watch = HealthClient::new(channel).watch(request).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    let late = timeout(LONG, watch.message()).await.unwrap().unwrap_err();
    assert_eq!(from_status(&late).reason, Reason::DeadlineExceeded, "{late:?}");
}
