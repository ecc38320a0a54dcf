//! Projects.

use outrider_model::{Project, ProjectId, Result, error::Violations};
use outrider_proto::admin as wire;
use outrider_rpc::convert::timestamp;
use outrider_store::{NewProject, ProjectChange};

use crate::{
    fields,
    mask::{Changes, Mutable},
};

const FIXED: &[&str] = &["project_id", "organization_id", "create_time", "update_time"];

/// To an answer.
pub fn to_wire(project: Project) -> wire::Project {
    wire::Project {
        project_id: project.id.to_string(),
        organization_id: project.organization.to_string(),
        name: project.name,
        create_time: Some(timestamp(project.created_at)),
        update_time: Some(timestamp(project.updated_at)),
    }
}

/// What is to be created.
pub fn create(request: &wire::CreateProjectRequest) -> Result<(NewProject, Option<&str>)> {
    let mut violations = Violations::new();
    let project = request.project.clone().unwrap_or_default();
    let id = fields::optional_id(&mut violations, "project.project_id", &project.project_id);
    let name = fields::name(&mut violations, "project.name", &project.name);
    let request_id = fields::request_id(&mut violations, &request.request_id);
    fields::checked(violations, id.map(|id| (NewProject { id, name }, request_id)))
}

/// What an update changes.
pub fn change(request: wire::UpdateProjectRequest) -> Result<(ProjectId, ProjectChange)> {
    let mut violations = Violations::new();
    let id = fields::id(&mut violations, "project_id", &request.project_id);
    let project = request.project.unwrap_or_default();
    let mutable = [Mutable::new("name", !project.name.is_empty())];
    let changes = Changes::resolve(&mut violations, request.update_mask.as_ref(), &mutable, FIXED);
    let name = changes.take("name", || fields::name(&mut violations, "project.name", &project.name));
    fields::checked(violations, id.map(|id| (id, ProjectChange { name })))
}
