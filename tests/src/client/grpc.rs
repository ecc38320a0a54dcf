//! gRPC clients with an API key.

use std::{fs, path::Path};

use anyhow::Result;
use outrider_proto::{
    admin::{
        endpoint_service_client::EndpointServiceClient,
        event_type_service_client::EventTypeServiceClient,
        project_service_client::ProjectServiceClient,
    },
    dispatch::{
        delivery_service_client::DeliveryServiceClient, event_service_client::EventServiceClient,
    },
    ingest::ingest_service_client::IngestServiceClient,
};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

/// Adds `authorization: Bearer …` to every call.
#[derive(Debug, Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl Bearer {
    /// Makes the header of a token.
    pub fn new(token: &str) -> Result<Self> {
        Ok(Self(format!("Bearer {token}").parse()?))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

type Guarded = InterceptedService<Channel, Bearer>;

/// One HTTP/2 connection, shared by the clients of all services.
#[derive(Debug, Clone)]
pub struct Grpc {
    channel: Channel,
    bearer: Bearer,
}

impl Grpc {
    /// Connects to a base URL such as `http://127.0.0.1:8080`.
    pub async fn connect(base: &str, token: &str) -> Result<Self> {
        Self::with_bearer(base, Bearer::new(token)?).await
    }

    /// Connects with a known key.
    pub async fn with_bearer(base: &str, bearer: Bearer) -> Result<Self> {
        Self::over(Endpoint::from_shared(base.to_owned())?, bearer).await
    }

    /// Connects to a base URL such as `https://127.0.0.1:8080` whose server has a certificate of an
    /// authority.
    pub async fn trusting(base: &str, token: &str, authority: &Path) -> Result<Self> {
        let tls =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(fs::read(authority)?));
        Self::over(Endpoint::from_shared(base.to_owned())?.tls_config(tls)?, Bearer::new(token)?)
            .await
    }

    async fn over(endpoint: Endpoint, bearer: Bearer) -> Result<Self> {
        Ok(Self { channel: endpoint.connect().await?, bearer })
    }

    /// The client of IngestService.
    #[must_use]
    pub fn ingest(&self) -> IngestServiceClient<Guarded> {
        IngestServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    /// The client of EventService.
    #[must_use]
    pub fn events(&self) -> EventServiceClient<Guarded> {
        EventServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    /// The client of DeliveryService.
    #[must_use]
    pub fn deliveries(&self) -> DeliveryServiceClient<Guarded> {
        DeliveryServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    /// The client of ProjectService.
    #[must_use]
    pub fn projects(&self) -> ProjectServiceClient<Guarded> {
        ProjectServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    /// The client of EndpointService.
    #[must_use]
    pub fn endpoints(&self) -> EndpointServiceClient<Guarded> {
        EndpointServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    /// The client of EventTypeService.
    #[must_use]
    pub fn event_types(&self) -> EventTypeServiceClient<Guarded> {
        EventTypeServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }
}
