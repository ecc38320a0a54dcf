//! Conversions of projects.

use std::time::Duration;

use outrider_model::{
    Noun, OrganizationId, Project, ProjectId, ProjectSpec, Result, SchemaValidation,
    error::Violations, limits,
};
use outrider_proto::admin as wire;
use outrider_rpc::convert::{duration, parse_duration, timestamp};
use outrider_store::NewProject;

use crate::{
    fields,
    spec::{Change, Field, changes, read},
};

const ORGANIZATION: &str = "project.organization_id";

const FIXED: &[&str] = &["project_id", "organization_id", "create_time", "update_time"];

/// Converts a project for an answer.
pub fn to_wire(project: Project) -> wire::Project {
    let Noun { meta, spec } = project;
    wire::Project {
        project_id: meta.id.to_string(),
        organization_id: meta.fixed.organization.to_string(),
        name: spec.name,
        schema_validation: i32::from(spec.schema_validation as u8),
        create_time: Some(timestamp(meta.created_at)),
        update_time: Some(timestamp(meta.updated_at)),
        payload_retention: spec.payload_retention.map(duration),
    }
}

fn settable() -> Vec<Field<'static, wire::Project, ProjectSpec>> {
    vec![
        Field::new(
            "name",
            |project| !project.name.is_empty(),
            |violations, project| fields::name(violations, "project.name", &project.name),
            |spec| &mut spec.name,
        ),
        Field::new(
            "schema_validation",
            |project| project.schema_validation != 0,
            schema_validation,
            |spec| &mut spec.schema_validation,
        ),
        Field::new(
            "payload_retention",
            |project| project.payload_retention.is_some(),
            payload_retention,
            |spec| &mut spec.payload_retention,
        ),
    ]
}

/// Reads the request to create a project.
pub fn create(
    request: &wire::CreateProjectRequest,
    organization: OrganizationId,
) -> Result<(NewProject, Option<&str>)> {
    let mut violations = Violations::new();
    let project = request.project.clone().unwrap_or_default();
    let id = fields::optional_id(&mut violations, "project.project_id", &project.project_id);
    let own = organization.to_string();
    fields::fixed(&mut violations, ORGANIZATION, &project.organization_id, &own);
    let spec = read(&mut violations, &settable(), &project);
    let request_id = fields::request_id(&mut violations, &request.request_id);
    fields::checked(violations, id.map(|id| (NewProject { id, spec }, request_id)))
}

/// Reads the changes of an update.
pub fn change(
    request: wire::UpdateProjectRequest,
    organization: OrganizationId,
) -> Result<(ProjectId, Change<ProjectSpec>)> {
    let mut violations = Violations::new();
    let id = fields::id(&mut violations, "project_id", &request.project_id);
    let project = request.project.unwrap_or_default();
    fields::fixed(&mut violations, "project.project_id", &project.project_id, &request.project_id);
    let own = organization.to_string();
    fields::fixed(&mut violations, ORGANIZATION, &project.organization_id, &own);
    let mask = request.update_mask.as_ref();
    let change = changes(&mut violations, &settable(), &project, mask, FIXED);
    fields::checked(violations, id.map(|id| (id, change)))
}

/// Reads the retention. `None` if it is not set.
fn payload_retention(violations: &mut Violations, project: &wire::Project) -> Option<Duration> {
    const FIELD: &str = "project.payload_retention";
    let (least, most) = limits::PAYLOAD_RETENTION_SECONDS;
    let length = parse_duration(FIELD, project.payload_retention.as_ref()?).ok();
    let in_bounds = length.is_some_and(|length| {
        (Duration::from_secs(least)..=Duration::from_secs(most)).contains(&length)
    });
    violations.require(in_bounds, FIELD, format!("must be {least} to {most} seconds, or absent"));
    length
}

/// Reads the setting. The default if it is not set.
fn schema_validation(violations: &mut Violations, project: &wire::Project) -> SchemaValidation {
    let number = project.schema_validation;
    if number == 0 {
        return SchemaValidation::default();
    }
    let known = SchemaValidation::from_number(number);
    violations.require(
        known.is_some(),
        "project.schema_validation",
        "is not one of OFF, WARN and REJECT",
    );
    known.unwrap_or_default()
}
