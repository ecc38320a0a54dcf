//! Conversions of event types. The service checks whether a schema compiles, because that takes
//! time.

use outrider_model::{
    EventType, EventTypeDefinition, EventTypeSpec, Noun, ProjectId, Result, error::Violations,
};
use outrider_proto::admin as wire;
use outrider_rpc::{convert::timestamp, validate};
use outrider_store::NewEventType;

use crate::{
    fields,
    spec::{Change, Field, changes, read},
};

const FIXED: &[&str] = &["project_id", "event_type", "create_time", "update_time"];

/// Converts an event type for an answer.
pub fn to_wire(entry: EventTypeDefinition) -> wire::EventType {
    let Noun { meta, spec } = entry;
    wire::EventType {
        project_id: meta.fixed.project.to_string(),
        event_type: meta.fixed.event_type.to_string(),
        create_time: Some(timestamp(meta.created_at)),
        update_time: Some(timestamp(meta.updated_at)),
        description: spec.description,
        schema: spec.schema.unwrap_or_default(),
        deprecated: spec.deprecated,
    }
}

fn settable() -> Vec<Field<'static, wire::EventType, EventTypeSpec>> {
    vec![
        Field::new(
            "description",
            |entry| !entry.description.is_empty(),
            description,
            |spec| &mut spec.description,
        ),
        Field::new("schema", |entry| !entry.schema.is_empty(), schema, |spec| &mut spec.schema),
        Field::new(
            "deprecated",
            |entry| entry.deprecated,
            |_, entry| entry.deprecated,
            |spec| &mut spec.deprecated,
        ),
    ]
}

/// Reads the request to create an event type.
pub fn create(
    request: &wire::CreateEventTypeRequest,
) -> Result<(ProjectId, NewEventType, Option<&str>)> {
    let mut violations = Violations::new();
    let entry = request.definition.clone().unwrap_or_default();
    let project = fields::id(&mut violations, "project_id", &request.project_id);
    fields::fixed(&mut violations, "definition.project_id", &entry.project_id, &request.project_id);
    let event_type = fields::id(&mut violations, "definition.event_type", &entry.event_type);
    let spec = read(&mut violations, &settable(), &entry);
    let request_id = fields::request_id(&mut violations, &request.request_id);
    let value = project
        .zip(event_type)
        .map(|(project, event_type)| (project, NewEventType { event_type, spec }, request_id));
    fields::checked(violations, value)
}

/// Reads the changes of an update.
pub fn change(
    request: wire::UpdateEventTypeRequest,
) -> Result<(ProjectId, EventType, Change<EventTypeSpec>)> {
    let mut violations = Violations::new();
    let project = fields::id(&mut violations, "project_id", &request.project_id);
    let event_type = fields::id(&mut violations, "event_type", &request.event_type);
    let entry = request.definition.unwrap_or_default();
    fields::fixed(&mut violations, "definition.event_type", &entry.event_type, &request.event_type);
    fields::fixed(&mut violations, "definition.project_id", &entry.project_id, &request.project_id);
    let mask = request.update_mask.as_ref();
    let change = changes(&mut violations, &settable(), &entry, mask, FIXED);
    fields::checked(
        violations,
        project.zip(event_type).map(|(project, event_type)| (project, event_type, change)),
    )
}

fn description(violations: &mut Violations, entry: &wire::EventType) -> String {
    violations.check("definition.description", validate::description(&entry.description));
    entry.description.clone()
}

fn schema(_: &mut Violations, entry: &wire::EventType) -> Option<String> {
    Some(entry.schema.clone()).filter(|text| !text.is_empty())
}
