//! Projects.

use outrider_model::{Project, ProjectId, Result, SchemaValidation, error::Violations};
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
        schema_validation: i32::from(project.schema_validation as u8),
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
    let schema_validation = schema_validation(&mut violations, project.schema_validation);
    let request_id = fields::request_id(&mut violations, &request.request_id);
    fields::checked(violations, id.map(|id| (NewProject { id, name, schema_validation }, request_id)))
}

/// What an update changes.
pub fn change(request: wire::UpdateProjectRequest) -> Result<(ProjectId, ProjectChange)> {
    let mut violations = Violations::new();
    let id = fields::id(&mut violations, "project_id", &request.project_id);
    let project = request.project.unwrap_or_default();
    let mutable =
        [Mutable::new("name", !project.name.is_empty()), Mutable::new("schema_validation", project.schema_validation != 0)];
    let changes = Changes::resolve(&mut violations, request.update_mask.as_ref(), &mutable, FIXED);
    let change = ProjectChange {
        name: changes.take("name", || fields::name(&mut violations, "project.name", &project.name)),
        schema_validation: changes.take("schema_validation", || schema_validation(&mut violations, project.schema_validation)),
    };
    fields::checked(violations, id.map(|id| (id, change)))
}

/// The default when it is not set.
fn schema_validation(violations: &mut Violations, number: i32) -> SchemaValidation {
    if number == 0 {
        return SchemaValidation::default();
    }
    let known = SchemaValidation::from_number(number);
    violations.require(known.is_some(), "project.schema_validation", "is not one of OFF, WARN and REJECT");
    known.unwrap_or_default()
}
