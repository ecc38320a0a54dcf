//! Conversions of event types. The service checks whether a schema compiles, because that takes
//! time.

use outrider_model::{EventType, EventTypeDefinition, ProjectId, Result, error::Violations};
use outrider_proto::admin as wire;
use outrider_rpc::{convert::timestamp, validate};
use outrider_store::{EventTypeChange, NewEventType};

use crate::{
    fields,
    mask::{Changes, Mutable},
};

const FIXED: &[&str] = &["project_id", "event_type", "create_time", "update_time"];

/// Converts an event type for an answer.
pub fn to_wire(entry: EventTypeDefinition) -> wire::EventType {
    wire::EventType {
        project_id: entry.project.to_string(),
        event_type: entry.event_type.to_string(),
        description: entry.description,
        schema: entry.schema.unwrap_or_default(),
        deprecated: entry.deprecated,
        create_time: Some(timestamp(entry.created_at)),
        update_time: Some(timestamp(entry.updated_at)),
    }
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
    let description = description(&mut violations, entry.description);
    let (schema, deprecated) = (schema(entry.schema), entry.deprecated);
    let request_id = fields::request_id(&mut violations, &request.request_id);
    let value = project.zip(event_type).map(|(project, event_type)| {
        (project, NewEventType { event_type, description, schema, deprecated }, request_id)
    });
    fields::checked(violations, value)
}

/// Reads the changes of an update.
pub fn change(
    request: wire::UpdateEventTypeRequest,
) -> Result<(ProjectId, EventType, EventTypeChange)> {
    let mut violations = Violations::new();
    let project = fields::id(&mut violations, "project_id", &request.project_id);
    let event_type = fields::id(&mut violations, "event_type", &request.event_type);
    let entry = request.definition.unwrap_or_default();
    fields::fixed(&mut violations, "definition.event_type", &entry.event_type, &request.event_type);
    fields::fixed(&mut violations, "definition.project_id", &entry.project_id, &request.project_id);
    let mutable = [
        Mutable::new("description", !entry.description.is_empty()),
        Mutable::new("schema", !entry.schema.is_empty()),
        Mutable::new("deprecated", entry.deprecated),
    ];
    let changes = Changes::resolve(&mut violations, request.update_mask.as_ref(), &mutable, FIXED);
    let change = EventTypeChange {
        description: changes
            .take("description", || description(&mut violations, entry.description)),
        schema: changes.take("schema", || schema(entry.schema)),
        deprecated: changes.take("deprecated", || entry.deprecated),
    };
    fields::checked(
        violations,
        project.zip(event_type).map(|(project, event_type)| (project, event_type, change)),
    )
}

fn description(violations: &mut Violations, text: String) -> String {
    violations.check("definition.description", validate::description(&text));
    text
}

fn schema(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}
