//! Messages and enums as JSON schemas, with the same mapping as `read` and `write`.

use std::collections::BTreeMap;

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use outrider_rpc::bounds;

use super::comments::Commented;
use crate::json::{
    behavior::{self, IDENTIFIER, IMMUTABLE, INPUT_ONLY, OUTPUT_ONLY},
    payload::{self, DATA, DATA_BASE64},
    range,
};

/// The object under `error`.
pub(super) const ERROR: &str = "Error";

/// The named schemas that the document refers to, added as they are found.
#[derive(Default)]
pub(super) struct Schemas {
    schemas: BTreeMap<String, Value>,
}

impl Schemas {
    pub(super) fn into_map(self) -> Map<String, Value> {
        self.schemas.into_iter().collect()
    }

    pub(super) fn insert(&mut self, name: &str, schema: Value) {
        self.schemas.insert(name.to_owned(), schema);
    }

    /// Returns the schema of a field, with its description.
    pub(super) fn field(&mut self, field: &FieldDescriptor) -> Value {
        let mut schema = match field.kind() {
            Kind::Message(entry) if field.is_map() => {
                json!({ "type": "object",
                    "additionalProperties": self.kind(&entry.map_entry_value_field().kind()) })
            }
            kind if field.is_list() => json!({ "type": "array", "items": self.kind(&kind) }),
            kind => self.kind(&kind),
        };
        let behaviors = behavior::of(field);
        if let Some(object) = schema.as_object_mut() {
            if let Some(most) = bounds::declared_max_items(field) {
                object.insert(
                    if field.is_map() { "maxProperties" } else { "maxItems" }.into(),
                    most.into(),
                );
            }
            if !field.comment().is_empty() {
                object.insert("description".into(), field.comment().into());
            }
            if behaviors.contains(&OUTPUT_ONLY) {
                object.insert("readOnly".into(), true.into());
            }
            if let Some((_, most)) = range::of(field) {
                object.insert("minimum".into(), 0.into());
                object.insert("maximum".into(), most.into());
            }
            if behaviors.contains(&INPUT_ONLY) {
                object.insert("writeOnly".into(), true.into());
            }
            let marks = [(IMMUTABLE, "IMMUTABLE"), (IDENTIFIER, "IDENTIFIER")];
            let marks = marks
                .iter()
                .filter(|(mark, _)| behaviors.contains(mark))
                .map(|(_, name)| *name)
                .collect::<Vec<_>>();
            if !marks.is_empty() {
                object.insert("x-field-behavior".into(), marks.into());
            }
        }
        schema
    }

    /// Returns the schema of one value.
    pub(super) fn kind(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                json!({ "type": "integer", "format": "int32" })
            }
            Kind::Uint32 | Kind::Fixed32 => {
                json!({ "type": "integer", "format": "uint32", "minimum": 0, "maximum": u32::MAX })
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                json!({ "type": "string", "format": "int64", "pattern": "^-?[0-9]+$" })
            }
            Kind::Uint64 | Kind::Fixed64 => {
                json!({ "type": "string", "format": "uint64", "pattern": "^[0-9]+$" })
            }
            Kind::Double => json!({ "type": "number", "format": "double" }),
            Kind::Float => json!({ "type": "number", "format": "float" }),
            Kind::String => json!({ "type": "string" }),
            Kind::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
            Kind::Enum(names) => self.enumerated(names),
            Kind::Message(message) => self.message(message),
        }
    }

    fn enumerated(&mut self, names: &EnumDescriptor) -> Value {
        let name = names.name().to_owned();
        if !self.schemas.contains_key(&name) {
            let mut description = names.comment().to_owned();
            description.push('\n');
            for value in names.values() {
                description.push_str(&format!("\n- `{}`: {}", value.name(), value.comment()));
            }
            let values = names.values().map(|value| value.name().to_owned()).collect::<Vec<_>>();
            self.insert(
                &name,
                json!({ "type": "string", "enum": values, "description": description }),
            );
        }
        reference(&name)
    }

    fn message(&mut self, message: &MessageDescriptor) -> Value {
        match message.full_name() {
            "google.protobuf.Timestamp" => json!({ "type": "string", "format": "date-time" }),
            "google.protobuf.Duration" => json!({
                "type": "string", "format": "google-duration",
                    "pattern": "^-?[0-9]+(\\.[0-9]{1,9})?s$", "examples": ["15s", "0.25s"],
            }),
            "google.protobuf.FieldMask" => {
                json!({ "type": "string", "examples": ["description,max_in_flight"] })
            }
            "google.protobuf.Empty" | "google.protobuf.Struct" | "google.protobuf.Any" => {
                json!({ "type": "object" })
            }
            "google.protobuf.ListValue" => json!({ "type": "array", "items": {} }),
            "google.protobuf.Value" => json!({}),
            "google.rpc.Status" => reference(ERROR),
            name if name.starts_with("google.protobuf.") => message
                .get_field_by_name("value")
                .map_or(json!({}), |value| self.kind(&value.kind())),
            _ => {
                let name = name(message);
                if !self.schemas.contains_key(&name) {
                    // The name is inserted before the fields are visited, because they may lead
                    // back to the message.
                    self.insert(&name, Value::Null);
                    let schema = self.object(message, &|_| true);
                    self.insert(&name, schema);
                }
                reference(&name)
            }
        }
    }

    /// Returns the schema of an object with the wanted fields.
    pub(super) fn object(
        &mut self,
        message: &MessageDescriptor,
        wanted: &dyn Fn(&FieldDescriptor) -> bool,
    ) -> Value {
        let (mut properties, mut rivals) = (Map::new(), Vec::new());
        for field in message.fields().filter(|field| wanted(field)) {
            if payload::text_of(message) == Some(&field) {
                let description = format!("{} In JSON: any value.", field.comment());
                properties.insert(field.name().to_owned(), json!({ "description": description }));
            } else if payload::field_of(message) == Some(&field) {
                properties.extend(payload_properties(&field));
                rivals.push(vec![DATA.to_owned(), DATA_BASE64.to_owned()]);
            } else {
                properties.insert(field.name().to_owned(), self.field(&field));
            }
        }
        for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
            rivals.push(
                oneof
                    .fields()
                    .filter(|field| wanted(field))
                    .map(|field| field.name().to_owned())
                    .collect(),
            );
        }
        let mut schema =
            json!({ "type": "object", "description": message.comment(), "properties": properties });
        let pairs = rivals.iter().flat_map(|names| pairs(names)).collect::<Vec<_>>();
        if !pairs.is_empty() {
            schema["not"] = json!({ "anyOf": pairs });
        }
        schema
    }
}

/// The name of a message without its package. `buf lint` and a test check that names are unique.
pub(super) fn name(message: &MessageDescriptor) -> String {
    message
        .full_name()
        .strip_prefix(message.package_name())
        .unwrap_or_default()
        .trim_start_matches('.')
        .to_owned()
}

pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// Every pair of the names. The names of a pair must not be given together.
fn pairs(names: &[String]) -> Vec<Value> {
    let from = |at: usize| {
        names[at + 1..].iter().map(move |other| json!({ "required": [names[at], other] }))
    };
    (0..names.len()).flat_map(from).collect()
}

fn payload_properties(field: &FieldDescriptor) -> [(String, Value); 2] {
    let description = field.comment();
    [
        (
            DATA.to_owned(),
            json!({ "description": format!("{description} In JSON: any value, not together with \
                {DATA_BASE64}.") }),
        ),
        (
            DATA_BASE64.to_owned(),
            json!({
                "type": "string", "contentEncoding": "base64",
                "description": format!("{description} In JSON: any bytes, in base64, not together \
                    with {DATA}."),
            }),
        ),
    ]
}
