//! `outrider events`.

use clap::{Args, Subcommand};
use outrider_proto::dispatch::{
    ErasePayloadRequest, GetEventRequest, ListEventsRequest,
    event_service_client::EventServiceClient,
};

use super::{
    ClientOptions, Failure,
    connection::{Session, WHOLE},
    input::{Page, Span},
    output::Column,
};

const COLUMNS: &[Column] = &[
    ("id", "event_id"),
    ("type", "event_type"),
    ("bytes", "payload_size"),
    ("deliveries", "delivery_count"),
    ("routing", "routing_outcome"),
    ("accepted", "create_time"),
];

#[derive(Debug, Args)]
pub struct Events {
    #[command(flatten)]
    pub client: ClientOptions,
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Lists events, newest first, without payloads.
    List {
        #[command(flatten)]
        page: Page,
        #[command(flatten)]
        span: Span,
        /// Only events of this type.
        #[arg(long = "type", default_value = "", hide_default_value = true, value_name = "TYPE")]
        event_type: String,
    },
    /// Shows an event with its payload.
    Get { id: String },
    /// Erases the payload of an event and the responses of endpoints permanently. Refused while a
    /// delivery of the event is pending.
    Erase { id: String },
}

pub async fn run(options: Events) -> Result<(), Failure> {
    let session = Session::open(&options.client).await?;
    let mut api = EventServiceClient::new(session.service()).max_decoding_message_size(WHOLE);
    let project_id = session.project()?;
    match options.action {
        Action::List { page, span, event_type } => {
            let request = ListEventsRequest {
                project_id,
                page_size: page.size(),
                page_token: page.page_token,
                event_type,
                start_time: span.since,
                end_time: span.until,
            };
            session.output.page(api.list_events(request).await?, COLUMNS)
        }
        Action::Get { id } => {
            let answer =
                api.get_event(GetEventRequest { project_id, event_id: id }).await?.into_inner();
            session.output.one(&answer.event.unwrap_or_default())
        }
        Action::Erase { id } => {
            let answer = api
                .erase_payload(ErasePayloadRequest { project_id, event_id: id })
                .await?
                .into_inner();
            session.output.one(&answer.event.unwrap_or_default())
        }
    }
}
