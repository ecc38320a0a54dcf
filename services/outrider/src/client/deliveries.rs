//! `outrider deliveries`.

use clap::{Args, Subcommand};
use outrider_proto::dispatch::{
    DeliveryStatus, GetDeliveryAttemptRequest, GetDeliveryRequest, ListDeliveriesRequest,
    ListDeliveryAttemptsRequest, RetryDeliveryRequest,
    delivery_service_client::DeliveryServiceClient,
};

use super::{
    ClientOptions, Failure,
    connection::{Session, WHOLE},
    input::{Page, Span},
    output::Column,
    status::Status,
    watch::{self, Watch},
};

const COLUMNS: &[Column] = &[
    ("id", "delivery_id"),
    ("event", "event_id"),
    ("type", "event_type"),
    ("endpoint", "endpoint_id"),
    ("status", "status"),
    ("reason", "reason"),
    ("attempts", "attempt_count"),
    ("last", "last_status_code"),
    ("next attempt", "next_attempt_time"),
];
const ATTEMPT_COLUMNS: &[Column] = &[
    ("id", "attempt_id"),
    ("no.", "number"),
    ("outcome", "outcome"),
    ("status", "status_code"),
    ("begun", "start_time"),
    ("took", "duration"),
    ("resent", "resent"),
    ("error", "error_message"),
];

#[derive(Debug, Args)]
pub struct Deliveries {
    #[command(flatten)]
    pub client: ClientOptions,
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Lists deliveries, newest first.
    List(List),
    /// Shows a delivery.
    Get { id: String },
    /// Attempts a pending delivery at once, or sends a finished one again as a new delivery.
    Retry { id: String },
    /// Prints changes of deliveries as they happen.
    Watch(Watch),
    /// Lists the attempts of a delivery.
    Attempts {
        /// The delivery, dlv_….
        id: String,
        #[command(flatten)]
        page: Page,
    },
    /// Shows an attempt with the endpoint's response.
    Attempt {
        /// The attempt, att_….
        id: String,
    },
}

#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    pub page: Page,
    #[command(flatten)]
    pub span: Span,
    /// Only deliveries of this event.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub event: String,
    /// Only deliveries of events of this type.
    #[arg(long = "type", default_value = "", hide_default_value = true, value_name = "TYPE")]
    pub event_type: String,
    /// Only deliveries to this endpoint.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub endpoint: String,
    /// Only deliveries with this status.
    #[arg(long, value_enum)]
    pub status: Option<Status>,
}

impl List {
    fn request(self, project_id: String) -> ListDeliveriesRequest {
        let status = self.status.map_or(DeliveryStatus::Unspecified, Status::wire);
        ListDeliveriesRequest {
            project_id,
            page_size: self.page.size(),
            page_token: self.page.page_token,
            event_id: self.event,
            event_type: self.event_type,
            endpoint_id: self.endpoint,
            status: status.into(),
            start_time: self.span.since,
            end_time: self.span.until,
        }
    }
}

pub async fn run(options: Deliveries) -> Result<(), Failure> {
    let session = Session::open(&options.client).await?;
    let (mut api, output) = (
        DeliveryServiceClient::new(session.service()).max_decoding_message_size(WHOLE),
        session.output,
    );
    let project_id = session.project()?;
    match options.action {
        Action::List(list) => {
            output.page(api.list_deliveries(list.request(project_id)).await?, COLUMNS)
        }
        Action::Watch(watch) => watch::run(&session, watch).await,
        Action::Get { id } => {
            let request = GetDeliveryRequest { project_id, delivery_id: id };
            output.one(&api.get_delivery(request).await?.into_inner().delivery.unwrap_or_default())
        }
        Action::Retry { id } => {
            let request = RetryDeliveryRequest { project_id, delivery_id: id };
            output
                .one(&api.retry_delivery(request).await?.into_inner().delivery.unwrap_or_default())
        }
        Action::Attempts { id, page } => {
            let request = ListDeliveryAttemptsRequest {
                project_id,
                page_size: page.size(),
                page_token: page.page_token,
                delivery_id: id,
                ..ListDeliveryAttemptsRequest::default()
            };
            output.page(api.list_delivery_attempts(request).await?, ATTEMPT_COLUMNS)
        }
        Action::Attempt { id } => {
            let request = GetDeliveryAttemptRequest { project_id, attempt_id: id };
            let answer = api.get_delivery_attempt(request).await?.into_inner();
            output.one(&answer.attempt.unwrap_or_default())
        }
    }
}
