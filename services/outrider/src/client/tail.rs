//! `outrider tail`.

use std::ops::ControlFlow;

use clap::Args;
use outrider_proto::dispatch::{
    TailEventsRequest, event_service_client::EventServiceClient, tail_events_response::Update,
};

use super::{
    ClientOptions, Failure,
    connection::{Session, WHOLE},
    follow::follow,
    output::Column,
};

const COLUMNS: &[Column] = &[
    ("accepted", "create_time"),
    ("id", "event_id"),
    ("type", "event_type"),
    ("bytes", "payload_size"),
    ("deliveries", "delivery_count"),
    ("routing", "routing_outcome"),
];

#[derive(Debug, Args)]
pub struct Tail {
    #[command(flatten)]
    pub client: ClientOptions,
    /// Only events of these types: exact names, PREFIX.* or *; can be repeated.
    #[arg(long = "event-type", visible_alias = "type", value_name = "TYPE", value_delimiter = ',')]
    pub event_types: Vec<String>,
    /// Includes payloads.
    #[arg(long)]
    pub payload: bool,
    /// Continues after the event that was printed with this cursor (--json).
    #[arg(long, default_value = "", hide_default_value = true)]
    pub cursor: String,
}

/// Prints events as they are accepted, until it is ended.
pub async fn run(options: Tail) -> Result<(), Failure> {
    let session = Session::open(&options.client).await?;
    let (api, output) = (
        EventServiceClient::new(session.service()).max_decoding_message_size(WHOLE),
        session.output,
    );
    let request = TailEventsRequest {
        project_id: session.project()?,
        cursor: String::new(),
        event_types: options.event_types,
        include_payload: options.payload,
    };
    let open = async |cursor| {
        api.clone().tail_events(TailEventsRequest { cursor, ..request.clone() }).await
    };
    follow(
        options.cursor,
        open,
        |message| message.cursor.clone(),
        async |message| {
            let Some(Update::Event(event)) = message.update else {
                return Ok(ControlFlow::Continue(()));
            };
            output.live(&message.cursor, "event", &event, COLUMNS)
        },
    )
    .await
}
