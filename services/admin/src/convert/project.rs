//! Conversions of projects.

use std::time::Duration;

use outrider_model::{Project, ProjectId, Result, SchemaValidation, error::Violations, limits};
use outrider_proto::admin as wire;
use outrider_rpc::convert::{duration, parse_duration, timestamp};
use outrider_store::{NewProject, ProjectChange};

use crate::{
    fields,
    mask::{Changes, Mutable},
};

const FIXED: &[&str] = &["project_id", "organization_id", "create_time", "update_time"];

/// Converts a project for an answer.
pub fn to_wire(project: Project) -> wire::Project {
    wire::Project {
        project_id: project.id.to_string(),
        organization_id: project.organization.to_string(),
        name: project.name,
        schema_validation: i32::from(project.schema_validation as u8),
        create_time: Some(timestamp(project.created_at)),
        update_time: Some(timestamp(project.updated_at)),
        payload_retention: project.payload_retention.map(duration),
    }
}

/// Reads the request to create a project.
pub fn create(request: &wire::CreateProjectRequest) -> Result<(NewProject, Option<&str>)> {
    let mut violations = Violations::new();
    let project = request.project.clone().unwrap_or_default();
    let id = fields::optional_id(&mut violations, "project.project_id", &project.project_id);
    let name = fields::name(&mut violations, "project.name", &project.name);
    let schema_validation = schema_validation(&mut violations, project.schema_validation);
    let payload_retention = payload_retention(&mut violations, project.payload_retention.as_ref());
    let request_id = fields::request_id(&mut violations, &request.request_id);
    let new = id.map(|id| NewProject { id, name, schema_validation, payload_retention });
    fields::checked(violations, new.map(|new| (new, request_id)))
}

/// Reads the changes of an update.
pub fn change(request: wire::UpdateProjectRequest) -> Result<(ProjectId, ProjectChange)> {
    let mut violations = Violations::new();
    let id = fields::id(&mut violations, "project_id", &request.project_id);
    let project = request.project.unwrap_or_default();
    fields::fixed(&mut violations, "project.project_id", &project.project_id, &request.project_id);
    let mutable = [
        Mutable::new("name", !project.name.is_empty()),
        Mutable::new("schema_validation", project.schema_validation != 0),
        Mutable::new("payload_retention", project.payload_retention.is_some()),
    ];
    let changes = Changes::resolve(&mut violations, request.update_mask.as_ref(), &mutable, FIXED);
    let change = ProjectChange {
        name: changes.take("name", || fields::name(&mut violations, "project.name", &project.name)),
        schema_validation: changes.take("schema_validation", || {
            schema_validation(&mut violations, project.schema_validation)
        }),
        payload_retention: changes.take("payload_retention", || {
            payload_retention(&mut violations, project.payload_retention.as_ref())
        }),
    };
    fields::checked(violations, id.map(|id| (id, change)))
}

/// Reads the retention. `None` if it is not set.
fn payload_retention(
    violations: &mut Violations,
    given: Option<&prost_types::Duration>,
) -> Option<Duration> {
    const FIELD: &str = "project.payload_retention";
    let (least, most) = limits::PAYLOAD_RETENTION_SECONDS;
    let length = parse_duration(FIELD, given?).ok();
    let in_bounds = length.is_some_and(|length| {
        (Duration::from_secs(least)..=Duration::from_secs(most)).contains(&length)
    });
    violations.require(in_bounds, FIELD, format!("must be {least} to {most} seconds, or absent"));
    length
}

/// Reads the setting. The default if it is not set.
fn schema_validation(violations: &mut Violations, number: i32) -> SchemaValidation {
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
