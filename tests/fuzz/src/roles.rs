//! Roles behind a gateway: every public method, served by the same libraries as in the real roles.
//! Each message that arrives is checked, and answered with defaults only.

use std::{convert::Infallible, future::Future, pin::Pin, sync::Arc};

use futures::stream;
use http::{Request, Response};
use outrider_gateway::{Backends, Gateway, Given, Options, fuzzed::Connections};
use outrider_model::{Error, HashedToken, OrganizationId, Principal, Timestamp};
use outrider_proto::{DESCRIPTORS, admin, dispatch, ingest};
use outrider_rpc::{
    Authenticate, Bounded, RequestErrors, methods, request_errors::request_error, server::Backend,
    to_status,
};
use prost::{DecodeError, Message};
use prost_reflect::{DynamicMessage, MessageDescriptor};
use tonic::{Status, Streaming, body::Body, server::Grpc};
use tonic_prost::ProstCodec;
use tower::{service_fn, util::BoxCloneSyncService};

use crate::lists;

/// A public method.
pub struct Method {
    /// Its gRPC path.
    pub path: &'static str,
    /// Decodes a message as the role does, and encodes it again.
    pub decode: fn(&[u8]) -> Result<Vec<u8>, DecodeError>,
    serve: fn(&'static str, Request<Body>) -> Served,
}

type Served = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

macro_rules! methods {
    ($($kind:ident $path:literal $request:ty => $response:ty;)*) => {
        /// All public methods.
        pub const METHODS: &[Method] = &[$(Method {
            path: $path,
            decode: |bytes| <$request>::decode(bytes).map(|message| message.encode_to_vec()),
            serve: |path, request| Box::pin($kind::<$request, $response>(path, request)),
        },)*];
    };
}

methods! {
    unary "/outrider.admin.v1.ApiKeyService/CreateApiKey"
        admin::CreateApiKeyRequest => admin::CreateApiKeyResponse;
    unary "/outrider.admin.v1.ApiKeyService/GetApiKey"
        admin::GetApiKeyRequest => admin::GetApiKeyResponse;
    unary "/outrider.admin.v1.ApiKeyService/ListApiKeys"
        admin::ListApiKeysRequest => admin::ListApiKeysResponse;
    unary "/outrider.admin.v1.ApiKeyService/UpdateApiKey"
        admin::UpdateApiKeyRequest => admin::UpdateApiKeyResponse;
    unary "/outrider.admin.v1.ApiKeyService/DeleteApiKey"
        admin::DeleteApiKeyRequest => admin::DeleteApiKeyResponse;
    unary "/outrider.admin.v1.EndpointService/CreateEndpoint"
        admin::CreateEndpointRequest => admin::CreateEndpointResponse;
    unary "/outrider.admin.v1.EndpointService/GetEndpoint"
        admin::GetEndpointRequest => admin::GetEndpointResponse;
    unary "/outrider.admin.v1.EndpointService/ListEndpoints"
        admin::ListEndpointsRequest => admin::ListEndpointsResponse;
    unary "/outrider.admin.v1.EndpointService/UpdateEndpoint"
        admin::UpdateEndpointRequest => admin::UpdateEndpointResponse;
    unary "/outrider.admin.v1.EndpointService/DeleteEndpoint"
        admin::DeleteEndpointRequest => admin::DeleteEndpointResponse;
    unary "/outrider.admin.v1.EndpointService/GetEndpointSecret"
        admin::GetEndpointSecretRequest => admin::GetEndpointSecretResponse;
    unary "/outrider.admin.v1.EventTypeService/CreateEventType"
        admin::CreateEventTypeRequest => admin::CreateEventTypeResponse;
    unary "/outrider.admin.v1.EventTypeService/GetEventType"
        admin::GetEventTypeRequest => admin::GetEventTypeResponse;
    unary "/outrider.admin.v1.EventTypeService/ListEventTypes"
        admin::ListEventTypesRequest => admin::ListEventTypesResponse;
    unary "/outrider.admin.v1.EventTypeService/UpdateEventType"
        admin::UpdateEventTypeRequest => admin::UpdateEventTypeResponse;
    unary "/outrider.admin.v1.EventTypeService/DeleteEventType"
        admin::DeleteEventTypeRequest => admin::DeleteEventTypeResponse;
    unary "/outrider.admin.v1.OrganizationService/GetOrganization"
        admin::GetOrganizationRequest => admin::GetOrganizationResponse;
    unary "/outrider.admin.v1.OrganizationService/ListOrganizations"
        admin::ListOrganizationsRequest => admin::ListOrganizationsResponse;
    unary "/outrider.admin.v1.OrganizationService/UpdateOrganization"
        admin::UpdateOrganizationRequest => admin::UpdateOrganizationResponse;
    unary "/outrider.admin.v1.ProjectService/CreateProject"
        admin::CreateProjectRequest => admin::CreateProjectResponse;
    unary "/outrider.admin.v1.ProjectService/GetProject"
        admin::GetProjectRequest => admin::GetProjectResponse;
    unary "/outrider.admin.v1.ProjectService/ListProjects"
        admin::ListProjectsRequest => admin::ListProjectsResponse;
    unary "/outrider.admin.v1.ProjectService/UpdateProject"
        admin::UpdateProjectRequest => admin::UpdateProjectResponse;
    unary "/outrider.admin.v1.ProjectService/DeleteProject"
        admin::DeleteProjectRequest => admin::DeleteProjectResponse;
    unary "/outrider.admin.v1.SubscriptionService/CreateSubscription"
        admin::CreateSubscriptionRequest => admin::CreateSubscriptionResponse;
    unary "/outrider.admin.v1.SubscriptionService/GetSubscription"
        admin::GetSubscriptionRequest => admin::GetSubscriptionResponse;
    unary "/outrider.admin.v1.SubscriptionService/ListSubscriptions"
        admin::ListSubscriptionsRequest => admin::ListSubscriptionsResponse;
    unary "/outrider.admin.v1.SubscriptionService/UpdateSubscription"
        admin::UpdateSubscriptionRequest => admin::UpdateSubscriptionResponse;
    unary "/outrider.admin.v1.SubscriptionService/DeleteSubscription"
        admin::DeleteSubscriptionRequest => admin::DeleteSubscriptionResponse;
    unary "/outrider.dispatch.v1.DeliveryService/GetDelivery"
        dispatch::GetDeliveryRequest => dispatch::GetDeliveryResponse;
    unary "/outrider.dispatch.v1.DeliveryService/ListDeliveries"
        dispatch::ListDeliveriesRequest => dispatch::ListDeliveriesResponse;
    unary "/outrider.dispatch.v1.DeliveryService/RetryDelivery"
        dispatch::RetryDeliveryRequest => dispatch::RetryDeliveryResponse;
    unary "/outrider.dispatch.v1.DeliveryService/GetDeliveryAttempt"
        dispatch::GetDeliveryAttemptRequest => dispatch::GetDeliveryAttemptResponse;
    unary "/outrider.dispatch.v1.DeliveryService/ListDeliveryAttempts"
        dispatch::ListDeliveryAttemptsRequest => dispatch::ListDeliveryAttemptsResponse;
    server_stream "/outrider.dispatch.v1.DeliveryService/TailDeliveries"
        dispatch::TailDeliveriesRequest => dispatch::TailDeliveriesResponse;
    unary "/outrider.dispatch.v1.EventService/GetEvent"
        dispatch::GetEventRequest => dispatch::GetEventResponse;
    unary "/outrider.dispatch.v1.EventService/ListEvents"
        dispatch::ListEventsRequest => dispatch::ListEventsResponse;
    unary "/outrider.dispatch.v1.EventService/ErasePayload"
        dispatch::ErasePayloadRequest => dispatch::ErasePayloadResponse;
    server_stream "/outrider.dispatch.v1.EventService/TailEvents"
        dispatch::TailEventsRequest => dispatch::TailEventsResponse;
    unary "/outrider.ingest.v1.IngestService/PublishEvent"
        ingest::PublishEventRequest => ingest::PublishEventResponse;
    unary "/outrider.ingest.v1.IngestService/BatchPublishEvents"
        ingest::BatchPublishEventsRequest => ingest::BatchPublishEventsResponse;
    streams "/outrider.ingest.v1.IngestService/StreamEvents"
        ingest::StreamEventsRequest => ingest::StreamEventsResponse;
}

impl Method {
    /// Returns the type of its requests.
    pub fn input(&self) -> MessageDescriptor {
        let (service, name) = self.path[1..].split_once('/').expect("a path has two parts");
        let service = DESCRIPTORS.get_service_by_name(service).expect("a service of the protos");
        service
            .methods()
            .find(|method| method.name() == name)
            .expect("a method of the service")
            .input()
    }
}

/// Returns the method at this path.
pub fn method(path: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.path == path)
}

/// Asserts what must hold for a message that reached a role.
fn check(path: &str, message: &impl Message) {
    let input = method(path).expect("a public method").input();
    let message = DynamicMessage::decode(input, message.encode_to_vec().as_slice())
        .expect("it was encoded by its own type");
    lists::check(&message);
}

/// Returns an empty answer. For a batch it has as many results as the request has entries.
fn answer<I: Message, O: Message + Default>(path: &str, request: &I) -> Result<O, Status> {
    if !path.ends_with("/BatchPublishEvents") {
        return Ok(O::default());
    }
    let again = |_| Status::internal("it was encoded by its own type");
    let request = ingest::BatchPublishEventsRequest::decode(request.encode_to_vec().as_slice())
        .map_err(again)?;
    if request.events.is_empty() {
        return Err(to_status(Error::field("events", "must have 1 to 1000 entries")));
    }
    let results = vec![ingest::BatchPublishEventsResult::default(); request.events.len()];
    O::decode(ingest::BatchPublishEventsResponse { results }.encode_to_vec().as_slice())
        .map_err(again)
}

async fn unary<I, O>(path: &'static str, request: Request<Body>) -> Response<Body>
where
    I: Message + Default + 'static,
    O: Message + Default + 'static,
{
    let service = service_fn(move |request: tonic::Request<I>| async move {
        check(path, request.get_ref());
        answer::<I, O>(path, request.get_ref()).map(tonic::Response::new)
    });
    Grpc::new(ProstCodec::<O, I>::default()).unary(service, request).await
}

async fn server_stream<I, O>(path: &'static str, request: Request<Body>) -> Response<Body>
where
    I: Message + Default + 'static,
    O: Message + Default + 'static,
{
    let service = service_fn(move |request: tonic::Request<I>| async move {
        check(path, request.get_ref());
        Ok::<_, Status>(tonic::Response::new(stream::iter([Ok(O::default()), Ok(O::default())])))
    });
    Grpc::new(ProstCodec::<O, I>::default()).server_streaming(service, request).await
}

async fn streams<I, O>(path: &'static str, request: Request<Body>) -> Response<Body>
where
    I: Message + Default + 'static,
    O: Message + Default + 'static,
{
    let service = service_fn(move |request: tonic::Request<Streaming<I>>| async move {
        let mut messages = request.into_inner();
        while let Some(message) =
            messages.message().await.map_err(|status| to_status(request_error(&status)))?
        {
            check(path, &message);
        }
        Ok::<_, Status>(tonic::Response::new(stream::empty::<Result<O, Status>>()))
    });
    Grpc::new(ProstCodec::<O, I>::default()).streaming(service, request).await
}

/// Returns all roles in one.
fn role() -> Backend {
    let methods = service_fn(|request: Request<Body>| async move {
        let Some(method) = method(request.uri().path()) else {
            return Ok::<_, Infallible>(Status::unimplemented("no such method").into_http());
        };
        let request = request.map(|body| Bounded::of(method.path, body));
        Ok((method.serve)(method.path, request).await)
    });
    BoxCloneSyncService::new(RequestErrors::new(methods, methods::client_streams))
}

/// Returns a gateway in front of the roles, with server reflection.
///
/// # Panics
/// If it cannot start.
pub fn gateway() -> Connections {
    let backends = Backends { ingest: role(), dispatch: role(), admin: role() };
    let options = Options { reflection: true, ..Options::default() };
    Connections::new(
        Gateway::new(options, Given::default(), backends, Arc::new(Keys))
            .expect("the protos give routes"),
    )
}

/// Accepts every key.
struct Keys;

#[async_trait::async_trait]
impl Authenticate for Keys {
    async fn authenticate(&self, _: &HashedToken) -> Result<Principal, Error> {
        Ok(Principal::system(OrganizationId::new(Timestamp(0), 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_public_method_is_there() {
        let all: Vec<_> = methods::public_services()
            .flat_map(|service| service.methods().collect::<Vec<_>>())
            .collect();
        for one in &all {
            assert!(method(&methods::path(one)).is_some(), "{} is missing", methods::path(one));
        }
        assert_eq!(all.len(), METHODS.len());
    }
}
