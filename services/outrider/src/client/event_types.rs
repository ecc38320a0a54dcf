//! `outrider event-types`.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::{Args, Subcommand};
use outrider_model::limits;
use outrider_proto::admin::{
    CreateEventTypeRequest, DeleteEventTypeRequest, EventType, GetEventTypeRequest,
    ListEventTypesRequest, UpdateEventTypeRequest,
    event_type_service_client::EventTypeServiceClient,
};

use super::{
    ClientOptions, Failure,
    connection::{Session, WHOLE},
    input::{Mask, Page},
    output::Column,
    source::source,
};

const COLUMNS: &[Column] = &[
    ("type", "event_type"),
    ("deprecated", "deprecated"),
    ("description", "description"),
    ("changed", "update_time"),
];

#[derive(Debug, Args)]
pub struct EventTypes {
    #[command(flatten)]
    pub client: ClientOptions,
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Lists event types, oldest first, without their schemas.
    List(Page),
    /// Shows an event type with its schema.
    Get {
        /// The type, such as invoice.paid.
        event_type: String,
    },
    /// Adds an event type to the catalog.
    Create {
        /// The type, such as invoice.paid.
        event_type: String,
        #[command(flatten)]
        fields: Fields,
    },
    /// Changes an event type.
    Update {
        /// The type.
        event_type: String,
        #[command(flatten)]
        fields: Fields,
        /// Fields to clear, such as schema; separated by commas.
        #[arg(long, value_delimiter = ',', value_name = "FIELD")]
        clear: Vec<String>,
    },
    /// Removes an event type from the catalog. Its events are then published without validation.
    Delete {
        /// The type.
        event_type: String,
    },
}

/// The fields that can be set.
#[derive(Debug, Args)]
pub struct Fields {
    /// The description.
    #[arg(long)]
    pub description: Option<String>,
    /// The file with the JSON Schema for payloads; - for standard input.
    #[arg(long, value_name = "FILE")]
    pub schema: Option<PathBuf>,
    /// Whether publishing the type returns a warning.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "true|false")]
    pub deprecated: Option<bool>,
}

impl Fields {
    fn definition(self, mask: &mut Mask) -> Result<EventType, Failure> {
        let schema = self.schema.as_deref().map(read).transpose()?;
        Ok(EventType {
            description: mask.take("description", self.description),
            schema: mask.take("schema", schema),
            deprecated: mask.take("deprecated", self.deprecated),
            ..EventType::default()
        })
    }
}

pub async fn run(options: EventTypes) -> Result<(), Failure> {
    let session = Session::open(&options.client).await?;
    let (mut api, output) = (
        EventTypeServiceClient::new(session.service()).max_decoding_message_size(WHOLE),
        session.output,
    );
    let project_id = session.project()?;
    match options.action {
        Action::List(page) => {
            let request = ListEventTypesRequest {
                project_id,
                page_size: page.size(),
                page_token: page.page_token,
            };
            output.page(api.list_event_types(request).await?, COLUMNS)
        }
        Action::Get { event_type } => {
            let request = GetEventTypeRequest { project_id, event_type };
            output.one(
                &api.get_event_type(request).await?.into_inner().definition.unwrap_or_default(),
            )
        }
        Action::Create { event_type, fields } => {
            let definition = EventType { event_type, ..fields.definition(&mut Mask::default())? };
            let request = CreateEventTypeRequest {
                project_id,
                definition: Some(definition),
                ..Default::default()
            };
            output.one(
                &api.create_event_type(request).await?.into_inner().definition.unwrap_or_default(),
            )
        }
        Action::Update { event_type, fields, clear } => {
            let mut mask = Mask::clearing(clear);
            let definition = Some(fields.definition(&mut mask)?);
            let request = UpdateEventTypeRequest {
                project_id,
                event_type,
                definition,
                update_mask: mask.finish()?,
            };
            output.one(
                &api.update_event_type(request).await?.into_inner().definition.unwrap_or_default(),
            )
        }
        Action::Delete { event_type } => {
            api.delete_event_type(DeleteEventTypeRequest {
                project_id,
                event_type: event_type.clone(),
            })
            .await?;
            output.done(&format!("deleted {event_type}"))
        }
    }
}

/// Reads the text of a schema without surrounding white space.
fn read(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let most = limits::SCHEMA_BYTES as u64;
    let cannot = || format!("cannot read {}", path.display());
    source(path)?.take(2 * most).read_to_string(&mut text).with_context(cannot)?;
    let text = text.trim();
    if text.is_empty() || text.len() as u64 > most {
        return Err(Failure::Usage(format!(
            "{} must hold 1 to {most} bytes of JSON",
            path.display()
        )));
    }
    Ok(text.to_owned())
}
