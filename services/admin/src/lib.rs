//! The admin role: organizations, projects, API keys, endpoints, subscriptions and event types,
//! over gRPC.
//!
//! A method takes the principal from its request, checks and converts every field, makes one change
//! through the store, announces it, and converts the answer. The role must never use SQL, decide
//! what a principal may access (the store does), or be in the path of an event.

use std::sync::Arc;

use outrider_proto::admin::{
    api_key_service_server::ApiKeyServiceServer, endpoint_service_server::EndpointServiceServer,
    event_type_service_server::EventTypeServiceServer,
    organization_service_server::OrganizationServiceServer,
    project_service_server::ProjectServiceServer,
    subscription_service_server::SubscriptionServiceServer,
};
use outrider_queue::Queue;
use outrider_store::Store;
use tonic::service::Routes;

mod convert;
mod fields;
mod mask;
mod options;
mod services;
mod spec;

use services::Services;

pub use options::{Given, Options};

/// The admin role.
pub struct Admin {
    services: Arc<Services>,
    max_request_bytes: usize,
}

impl Admin {
    /// Uses a store, and the queue to announce changes.
    #[must_use]
    pub fn new(given: Given, store: Store, queue: Arc<dyn Queue>) -> Self {
        Self {
            services: Arc::new(Services::new(given.policy, store, queue)),
            max_request_bytes: given.max_request_bytes,
        }
    }

    /// Returns the gRPC services. They must be served behind [`outrider_rpc::Guard`]: without a
    /// principal, every method answers INTERNAL.
    #[must_use]
    pub fn routes(self) -> Routes {
        let Self { services, max_request_bytes: most } = self;
        let organizations = OrganizationServiceServer::from_arc(Arc::clone(&services))
            .max_decoding_message_size(most);
        Routes::new(organizations)
            .add_service(
                ProjectServiceServer::from_arc(Arc::clone(&services))
                    .max_decoding_message_size(most),
            )
            .add_service(
                ApiKeyServiceServer::from_arc(Arc::clone(&services))
                    .max_decoding_message_size(most),
            )
            .add_service(
                EndpointServiceServer::from_arc(Arc::clone(&services))
                    .max_decoding_message_size(most),
            )
            .add_service(
                SubscriptionServiceServer::from_arc(Arc::clone(&services))
                    .max_decoding_message_size(most),
            )
            .add_service(EventTypeServiceServer::from_arc(services).max_decoding_message_size(most))
    }
}
