//! The update mask of a PATCH (AIP-134): when the query names none, the body's own keys are the mask, so that
//! `PATCH {"description": ""}` clears the description and touches nothing else. Nested objects and maps are replaced whole; a key
//! with `null` clears its field.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

/// The name of the mask in requests.
const FIELD: &str = "update_mask";

/// The mask of a request type, if it has one.
pub(crate) fn field_of(input: &MessageDescriptor) -> Option<FieldDescriptor> {
    let is_mask =
        |field: &FieldDescriptor| matches!(field.kind(), Kind::Message(kind) if kind.full_name() == "google.protobuf.FieldMask");
    input.get_field_by_name(FIELD).filter(is_mask)
}

/// Sets the mask from the keys of the body, unless it is set or there are none.
pub(crate) fn derive(mask: &FieldDescriptor, present: Vec<String>, message: &mut DynamicMessage) {
    if present.is_empty() || message.has_field(mask) {
        return;
    }
    if let Kind::Message(desc) = mask.kind() {
        let mut value = DynamicMessage::new(desc);
        value.set_field_by_name("paths", Value::List(present.into_iter().map(Value::String).collect()));
        message.set_field(mask, Value::Message(value));
    }
}
