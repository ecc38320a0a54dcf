//! Fields whose JSON is kept as its exact text: payloads (option `json_payload`), which are bytes
//! that REST writes as `data` or `data_base64` in place of the field, and strings that hold JSON
//! (option `json_text`).

use std::{collections::HashMap, sync::LazyLock};

use outrider_proto::DESCRIPTORS;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, Value};

/// Any JSON value, kept as its exact text.
pub(crate) const DATA: &str = "data";
/// Any bytes, in base64.
pub(crate) const DATA_BASE64: &str = "data_base64";
/// The same in camelCase.
pub(crate) const DATA_BASE64_CAMEL: &str = "dataBase64";

/// The payload field of each type that has one, by the type's full name. A table, because reading
/// an option decodes it each time.
static FIELDS: LazyLock<HashMap<String, FieldDescriptor>> =
    LazyLock::new(|| fields("outrider.options.v1.json_payload"));

/// The field with JSON text of each type that has one.
static TEXTS: LazyLock<HashMap<String, FieldDescriptor>> =
    LazyLock::new(|| fields("outrider.options.v1.json_text"));

fn fields(option: &str) -> HashMap<String, FieldDescriptor> {
    let Some(extension) = DESCRIPTORS.get_extension_by_name(option) else { return HashMap::new() };
    let fields =
        DESCRIPTORS.all_messages().flat_map(|message| message.fields().collect::<Vec<_>>());
    fields
        .filter(|field| field.options().get_extension(&extension).as_ref() == &Value::Bool(true))
        .map(|field| (field.parent_message().full_name().to_owned(), field))
        .collect()
}

/// Returns the payload field of a message type.
pub(crate) fn field_of(message: &MessageDescriptor) -> Option<&'static FieldDescriptor> {
    FIELDS.get(message.full_name())
}

/// Returns the string field with JSON text of a message type.
pub(crate) fn text_of(message: &MessageDescriptor) -> Option<&'static FieldDescriptor> {
    TEXTS.get(message.full_name())
}

/// Translates a field path from an error of a role for a REST client. If the path ends in a
/// payload, or in a JSON pointer into one, the client wrote `data`. Returns `None` if nothing
/// changes.
pub(crate) fn rename(input: &MessageDescriptor, path: &str) -> Option<String> {
    let (path, pointer) = path.split_at(path.find('/').unwrap_or(path.len()));
    let (parents, last) = path.rsplit_once('.').unwrap_or(("", path));
    let mut message = input.clone();
    for part in parents.split('.').filter(|part| !part.is_empty()) {
        let name = part.split('[').next().unwrap_or_default();
        let Kind::Message(inner) = message.get_field_by_name(name)?.kind() else { return None };
        message = inner;
    }
    field_of(&message).filter(|payload| payload.name() == last)?;
    Some(if parents.is_empty() {
        format!("{DATA}{pointer}")
    } else {
        format!("{parents}.{DATA}{pointer}")
    })
}

/// Returns whether a media type is JSON: `application/json`, or any type with the suffix `+json`.
pub(crate) fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_payload_fields_of_the_protos() {
        let mut names = FIELDS.keys().map(String::as_str).collect::<Vec<_>>();
        names.sort_unstable();
        assert!(
            names.contains(&"outrider.dispatch.v1.Event")
                && names.contains(&"outrider.ingest.v1.NewEvent"),
            "{names:?}"
        );
    }

    #[test]
    fn roles_payload_is_the_clients_data() {
        let message = |name: &str| DESCRIPTORS.get_message_by_name(name).unwrap();
        let publish = message("outrider.ingest.v1.PublishEventRequest");
        assert_eq!(rename(&publish, "event.payload").as_deref(), Some("event.data"));
        let batch = message("outrider.ingest.v1.BatchPublishEventsRequest");
        assert_eq!(rename(&batch, "events[3].payload").as_deref(), Some("events[3].data"));
        assert_eq!(
            rename(&message("outrider.ingest.v1.NewEvent"), "payload").as_deref(),
            Some("data")
        );
        assert_eq!(rename(&publish, "event.payload/a.b/0").as_deref(), Some("event.data/a.b/0"));
        for other in [
            "event.event_type",
            "payload",
            "event.headers[\"payload\"]",
            "event.headers[\"a/payload\"]",
            "nothing.payload",
            "",
            ".",
        ] {
            assert_eq!(rename(&publish, other), None, "{other}");
        }
    }

    #[test]
    fn media_types_of_json() {
        for json in
            ["application/json", "Application/JSON; charset=utf-8", "application/cloudevents+json"]
        {
            assert!(is_json(json), "{json}");
        }
        for other in ["", "text/plain", "application/jsonl", "application/x-ndjson"] {
            assert!(!is_json(other), "{other}");
        }
    }
}
