//! The `google.api.field_behavior` of fields (AIP-203).

use outrider_proto::DESCRIPTORS;
use prost_reflect::{FieldDescriptor, Value};

/// Set by the server only.
pub(crate) const OUTPUT_ONLY: i32 = 3;
/// Given by the client only.
pub(crate) const INPUT_ONLY: i32 = 4;
/// Fixed at creation.
pub(crate) const IMMUTABLE: i32 = 5;
/// The name of the resource.
pub(crate) const IDENTIFIER: i32 = 8;

/// Returns the behaviors of a field, by number.
pub(crate) fn of(field: &FieldDescriptor) -> Vec<i32> {
    let Some(extension) = DESCRIPTORS.get_extension_by_name("google.api.field_behavior") else {
        return Vec::new();
    };
    match field.options().get_extension(&extension).as_ref() {
        Value::List(behaviors) => behaviors.iter().filter_map(Value::as_enum_number).collect(),
        _ => Vec::new(),
    }
}
