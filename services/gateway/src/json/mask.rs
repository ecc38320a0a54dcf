//! The update mask of a PATCH (AIP-134). If the query gives none, the keys of the body are the
//! mask, so that `PATCH {"description": ""}` clears the description and changes nothing else.
//! Nested objects and maps are replaced as a whole. A key with `null` clears its field. Fields that
//! the server sets or that are fixed at creation (AIP-203) are left out of such a mask, so that a
//! client can change one field of the answer to a GET and send it back.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use crate::json::behavior::{self, IDENTIFIER, IMMUTABLE, OUTPUT_ONLY};

/// The name of the mask in requests.
const FIELD: &str = "update_mask";

/// Returns the mask of a request type, if it has one.
pub(crate) fn field_of(input: &MessageDescriptor) -> Option<FieldDescriptor> {
    let is_mask = |field: &FieldDescriptor| {
        matches!(field.kind(),
        Kind::Message(kind) if kind.full_name() == "google.protobuf.FieldMask")
    };
    input.get_field_by_name(FIELD).filter(is_mask)
}

/// Sets the mask from the keys of the body, unless the mask is set or there are no keys.
pub(crate) fn derive(mask: &FieldDescriptor, present: Vec<String>, message: &mut DynamicMessage) {
    if present.is_empty() || message.has_field(mask) {
        return;
    }
    if let Kind::Message(desc) = mask.kind() {
        let mut value = DynamicMessage::new(desc);
        value.set_field_by_name(
            "paths",
            Value::List(present.into_iter().map(Value::String).collect()),
        );
        message.set_field(mask, Value::Message(value));
    }
}

/// The behaviors of fields that an update cannot change.
const NOT_SETTABLE: [i32; 3] = [OUTPUT_ONLY, IMMUTABLE, IDENTIFIER];

/// Removes the names of fields that an update cannot change.
pub(crate) fn keep_settable(body: &FieldDescriptor, present: &mut Vec<String>) {
    if let Kind::Message(object) = body.kind() {
        present
            .retain(|name| object.get_field_by_name(name).is_none_or(|field| is_settable(&field)));
    }
}

fn is_settable(field: &FieldDescriptor) -> bool {
    !behavior::of(field).iter().any(|behavior| NOT_SETTABLE.contains(behavior))
}

#[cfg(test)]
mod tests {
    use outrider_proto::DESCRIPTORS;

    use super::*;

    #[test]
    fn what_the_server_sets_stays_out_of_the_mask() {
        let request =
            DESCRIPTORS.get_message_by_name("outrider.admin.v1.UpdateSubscriptionRequest").unwrap();
        let body = request.get_field_by_name("subscription").unwrap();
        let mut present = ["subscription_id", "endpoint_id", "name", "event_types", "create_time"]
            .map(str::to_owned)
            .to_vec();
        keep_settable(&body, &mut present);
        assert_eq!(present, ["name", "event_types"]);
    }
}
