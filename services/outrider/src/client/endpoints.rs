//! `outrider endpoints`.

use clap::{Args, Subcommand, ValueEnum};
use outrider_proto::admin::{
    CreateEndpointRequest, DeleteEndpointRequest, Endpoint, EndpointState, GetEndpointRequest,
    GetEndpointSecretRequest, HttpTarget, ListEndpointsRequest, UpdateEndpointRequest,
    endpoint::Target, endpoint_service_client::EndpointServiceClient,
};
use prost_types::Duration;

use super::{
    ClientOptions, Failure,
    connection::{Session, WHOLE},
    input::{HEADER, METADATA, Mask, Page, duration, map, pair},
    output::Column,
};

const COLUMNS: &[Column] = &[
    ("id", "endpoint_id"),
    ("url", "http.url"),
    ("state", "state"),
    ("owner", "owner_id"),
    ("description", "description"),
    ("created", "create_time"),
];

#[derive(Debug, Args)]
pub struct Endpoints {
    #[command(flatten)]
    pub client: ClientOptions,
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Lists endpoints, oldest first.
    List {
        #[command(flatten)]
        page: Page,
        /// Only endpoints of this owner.
        #[arg(long, default_value = "", hide_default_value = true)]
        owner: String,
    },
    /// Shows an endpoint.
    Get { id: String },
    /// Creates an endpoint, and prints its signing secret.
    Create {
        #[command(flatten)]
        fields: Fields,
        /// A chosen id, ep_….
        #[arg(long, default_value = "", hide_default_value = true)]
        id: String,
        /// An existing signing secret, whsec_….
        #[arg(long, default_value = "", hide_default_value = true)]
        secret: String,
    },
    /// Changes an endpoint.
    Update {
        id: String,
        #[command(flatten)]
        fields: Fields,
        /// Fields to clear, such as description or headers; separated by commas.
        #[arg(long, value_delimiter = ',', value_name = "FIELD")]
        clear: Vec<String>,
    },
    /// Deletes an endpoint and its subscriptions, and cancels its pending deliveries.
    Delete { id: String },
    /// Prints the signing secret of an endpoint.
    Secret { id: String },
}

/// The fields that can be set.
#[derive(Debug, Args)]
pub struct Fields {
    /// The URL that receives webhooks.
    #[arg(long)]
    pub url: Option<String>,
    /// The description.
    #[arg(long)]
    pub description: Option<String>,
    /// Whether deliveries are sent to the endpoint.
    #[arg(long, value_enum)]
    pub state: Option<State>,
    /// The timeout of a request with its response, 1s to 30s.
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub timeout: Option<Duration>,
    /// Maximum number of requests in flight.
    #[arg(long, value_name = "N")]
    pub max_in_flight: Option<u32>,
    /// A header that is sent with every request; can be repeated.
    #[arg(long = "header", value_parser = pair, value_name = "NAME=VALUE")]
    pub headers: Vec<(String, String)>,
    /// A note that is not sent; can be repeated.
    #[arg(long = "metadata", value_parser = pair, value_name = "NAME=VALUE")]
    pub metadata: Vec<(String, String)>,
    /// The customer that the endpoint belongs to.
    #[arg(long)]
    pub owner: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum State {
    Active,
    Paused,
}

impl Fields {
    fn endpoint(self, mask: &mut Mask) -> Result<Endpoint, Failure> {
        let state = self.state.map(|state| match state {
            State::Active => EndpointState::Active.into(),
            State::Paused => EndpointState::Paused.into(),
        });
        Ok(Endpoint {
            target: mask
                .take("http.url", self.url.map(|url| Some(Target::Http(HttpTarget { url })))),
            description: mask.take("description", self.description),
            state: mask.take("state", state),
            timeout: mask.take("timeout", self.timeout.map(Some)),
            max_in_flight: mask.take("max_in_flight", self.max_in_flight),
            headers: map(HEADER, mask.take_all("headers", self.headers))?,
            metadata: map(METADATA, mask.take_all("metadata", self.metadata))?,
            owner_id: mask.take("owner_id", self.owner),
            ..Endpoint::default()
        })
    }
}

pub async fn run(options: Endpoints) -> Result<(), Failure> {
    let session = Session::open(&options.client).await?;
    let (mut api, output) = (
        EndpointServiceClient::new(session.service()).max_decoding_message_size(WHOLE),
        session.output,
    );
    let project_id = session.project()?;
    match options.action {
        Action::List { page, owner } => {
            let request = ListEndpointsRequest {
                project_id,
                page_size: page.size(),
                page_token: page.page_token,
                owner_id: owner,
            };
            output.page(api.list_endpoints(request).await?, COLUMNS)
        }
        Action::Get { id } => {
            let request = GetEndpointRequest { project_id, endpoint_id: id };
            output.one(&api.get_endpoint(request).await?.into_inner().endpoint.unwrap_or_default())
        }
        Action::Create { fields, id, secret } => {
            let endpoint = Endpoint { endpoint_id: id, ..fields.endpoint(&mut Mask::default())? };
            let request = CreateEndpointRequest {
                project_id,
                endpoint: Some(endpoint),
                secret,
                ..Default::default()
            };
            output.one(&api.create_endpoint(request).await?.into_inner())
        }
        Action::Update { id, fields, clear } => {
            let mut mask = Mask::clearing(clear);
            let endpoint = Some(fields.endpoint(&mut mask)?);
            let request = UpdateEndpointRequest {
                project_id,
                endpoint_id: id,
                endpoint,
                update_mask: mask.finish()?,
            };
            output
                .one(&api.update_endpoint(request).await?.into_inner().endpoint.unwrap_or_default())
        }
        Action::Delete { id } => {
            api.delete_endpoint(DeleteEndpointRequest { project_id, endpoint_id: id.clone() })
                .await?;
            output.done(&format!("deleted {id}"))
        }
        Action::Secret { id } => {
            let request = GetEndpointSecretRequest { project_id, endpoint_id: id };
            output.one(&api.get_endpoint_secret(request).await?.into_inner())
        }
    }
}
