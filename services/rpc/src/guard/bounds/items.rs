//! The field option `max_items`.

use std::{collections::HashMap, sync::LazyLock};

use outrider_proto::DESCRIPTORS;
use prost_reflect::{FieldDescriptor, Value};

/// Limit of a list or map without the option, such as the paths of a field mask.
const DEFAULT: u32 = 256;

/// The declared limits, by the full names of the fields. Reading an option decodes it each time,
/// so they are collected once.
pub(super) static MAX_ITEMS: LazyLock<HashMap<String, u32>> = LazyLock::new(|| {
    let Some(extension) = DESCRIPTORS.get_extension_by_name("outrider.options.v1.max_items") else {
        return HashMap::new();
    };
    let fields =
        DESCRIPTORS.all_messages().flat_map(|message| message.fields().collect::<Vec<_>>());
    let bounded =
        fields.filter_map(|field| match field.options().get_extension(&extension).as_ref() {
            Value::U32(most @ 1..) => Some((field.full_name().to_owned(), *most)),
            _ => None,
        });
    bounded.collect()
});

/// Returns the maximum number of entries in a list or map of a request.
#[must_use]
pub fn max_items(field: &FieldDescriptor) -> u32 {
    declared_max_items(field).unwrap_or(DEFAULT)
}

/// Returns the value of the option on a field, if the field has one.
#[must_use]
pub fn declared_max_items(field: &FieldDescriptor) -> Option<u32> {
    MAX_ITEMS.get(field.full_name()).copied()
}

/// Describes the violation of a field with more entries.
#[must_use]
pub fn too_many(most: u32) -> String {
    format!("must have at most {most} entries")
}
