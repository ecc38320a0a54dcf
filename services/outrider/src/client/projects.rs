//! `outrider projects`.

use clap::{Args, Subcommand, ValueEnum};
use outrider_proto::admin::{
    CreateProjectRequest, DeleteProjectRequest, GetProjectRequest, ListProjectsRequest, Project,
    SchemaValidation, UpdateProjectRequest, project_service_client::ProjectServiceClient,
};
use prost_types::Duration;

use super::{
    Failure, ServerOptions,
    connection::{Session, WHOLE},
    input::{Mask, Page, duration},
    output::Column,
};

const COLUMNS: &[Column] = &[
    ("id", "project_id"),
    ("name", "name"),
    ("validation", "schema_validation"),
    ("created", "create_time"),
];

#[derive(Debug, Args)]
pub struct Projects {
    #[command(flatten)]
    pub client: ServerOptions,
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Lists the projects that the key has access to, oldest first.
    List(Page),
    /// Shows a project.
    Get { id: String },
    /// Creates a project.
    Create {
        /// The display name.
        name: String,
        /// A chosen id, prj_….
        #[arg(long, default_value = "", hide_default_value = true)]
        id: String,
        /// The treatment of events that do not match the catalog of event types [default: off]
        #[arg(long, value_enum, value_name = "MODE")]
        schema_validation: Option<Validation>,
        /// How long payloads are kept, 1m to 3650d [default: as long as the events]
        #[arg(long, value_parser = duration, value_name = "TIME")]
        payload_retention: Option<Duration>,
    },
    /// Changes a project.
    Update {
        id: String,
        /// The new name.
        #[arg(long)]
        name: Option<String>,
        /// The treatment of events that do not match the catalog of event types.
        #[arg(long, value_enum, value_name = "MODE")]
        schema_validation: Option<Validation>,
        /// How long payloads are kept, 1m to 3650d; none: as long as the events.
        #[arg(long, value_parser = retention, value_name = "TIME|none")]
        payload_retention: Option<Retention>,
    },
    /// Deletes a project. It accepts no more events, and its pending deliveries are canceled.
    Delete { id: String },
}

/// How long payloads are kept: a time, or as long as the events.
#[derive(Debug, Clone)]
pub struct Retention(Option<Duration>);

fn retention(text: &str) -> Result<Retention, String> {
    if text == "none" {
        Ok(Retention(None))
    } else {
        duration(text).map(|length| Retention(Some(length)))
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Validation {
    /// Nothing is validated.
    Off,
    /// Events are accepted with a warning.
    Warn,
    /// Events are refused.
    Reject,
}

impl Validation {
    fn number(self) -> i32 {
        match self {
            Self::Off => SchemaValidation::Off.into(),
            Self::Warn => SchemaValidation::Warn.into(),
            Self::Reject => SchemaValidation::Reject.into(),
        }
    }
}

pub async fn run(options: Projects) -> Result<(), Failure> {
    let session = Session::within(&options.client, None).await?;
    let (mut api, output) = (
        ProjectServiceClient::new(session.service()).max_decoding_message_size(WHOLE),
        session.output,
    );
    match options.action {
        Action::List(page) => {
            let request =
                ListProjectsRequest { page_size: page.size(), page_token: page.page_token };
            output.page(api.list_projects(request).await?, COLUMNS)
        }
        Action::Get { id } => {
            let answer = api.get_project(GetProjectRequest { project_id: id }).await?.into_inner();
            output.one(&answer.project.unwrap_or_default())
        }
        Action::Create { name, id, schema_validation, payload_retention } => {
            let schema_validation = schema_validation.map_or(0, Validation::number);
            let project = Project {
                project_id: id,
                name,
                schema_validation,
                payload_retention,
                ..Project::default()
            };
            let request =
                CreateProjectRequest { project: Some(project), ..CreateProjectRequest::default() };
            output.one(&api.create_project(request).await?.into_inner().project.unwrap_or_default())
        }
        Action::Update { id, name, schema_validation, payload_retention } => {
            let mut mask = Mask::default();
            let project = Project {
                name: mask.take("name", name),
                schema_validation: mask
                    .take("schema_validation", schema_validation.map(Validation::number)),
                payload_retention: mask
                    .take("payload_retention", payload_retention.map(|Retention(length)| length)),
                ..Project::default()
            };
            let request = UpdateProjectRequest {
                project_id: id,
                project: Some(project),
                update_mask: mask.finish()?,
            };
            output.one(&api.update_project(request).await?.into_inner().project.unwrap_or_default())
        }
        Action::Delete { id } => {
            api.delete_project(DeleteProjectRequest { project_id: id.clone() }).await?;
            output.done(&format!("deleted {id}"))
        }
    }
}
