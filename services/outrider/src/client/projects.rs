//! `outrider projects`.

use clap::{Args, Subcommand};
use outrider_proto::admin::{
    CreateProjectRequest, DeleteProjectRequest, GetProjectRequest, ListProjectsRequest, Project, UpdateProjectRequest,
    project_service_client::ProjectServiceClient,
};

use super::{
    ClientOptions, Failure,
    connection::Session,
    input::{Mask, Page},
    output::Column,
};

const NAME: &str = "outrider.admin.v1.Project";
const COLUMNS: &[Column] = &[("id", "project_id"), ("name", "name"), ("created", "create_time")];

#[derive(Debug, Args)]
pub struct Projects {
    #[command(flatten)]
    pub client: ClientOptions,
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Debug, Subcommand)]
pub enum Action {
    /// The projects within the key's reach, oldest first.
    List(Page),
    /// One project.
    Get { id: String },
    /// Makes a project.
    Create {
        /// The name shown to people.
        name: String,
        /// A prj_… id of your choice.
        #[arg(long, default_value = "", hide_default_value = true)]
        id: String,
    },
    /// Changes a project.
    Update {
        id: String,
        /// The new name.
        #[arg(long)]
        name: Option<String>,
    },
    /// Deletes a project: nothing is accepted any more, and what is pending is cancelled.
    Delete { id: String },
}

pub async fn run(options: Projects) -> Result<(), Failure> {
    let session = Session::open(&options.client).await?;
    let (mut api, output) = (ProjectServiceClient::new(session.service()), session.output);
    match options.action {
        Action::List(page) => {
            let request = ListProjectsRequest { page_size: page.size(), page_token: page.page_token };
            let answer = api.list_projects(request).await?.into_inner();
            output.page("outrider.admin.v1.ListProjectsResponse", &answer, "projects", COLUMNS)
        }
        Action::Get { id } => {
            let answer = api.get_project(GetProjectRequest { project_id: id }).await?.into_inner();
            output.one(NAME, &answer.project.unwrap_or_default())
        }
        Action::Create { name, id } => {
            let project = Project { project_id: id, name, ..Project::default() };
            let request = CreateProjectRequest { project: Some(project), ..CreateProjectRequest::default() };
            output.one(NAME, &api.create_project(request).await?.into_inner().project.unwrap_or_default())
        }
        Action::Update { id, name } => {
            let mut mask = Mask::default();
            let project = Project { name: mask.take("name", name), ..Project::default() };
            let request = UpdateProjectRequest { project_id: id, project: Some(project), update_mask: mask.finish()? };
            output.one(NAME, &api.update_project(request).await?.into_inner().project.unwrap_or_default())
        }
        Action::Delete { id } => {
            api.delete_project(DeleteProjectRequest { project_id: id.clone() }).await?;
            output.done(&format!("deleted {id}"))
        }
    }
}
