//! Checks that the lists of a message are within their limits.

use outrider_rpc::bounds::max_items;
use prost_reflect::{DynamicMessage, Value};

/// Panics if a list or map has more entries than its field may have.
pub fn check(message: &DynamicMessage) {
    for (field, value) in message.fields() {
        let entries = match value {
            Value::List(entries) => entries.len(),
            Value::Map(entries) => entries.len(),
            _ => 0,
        };
        assert!(
            entries <= max_items(&field) as usize,
            "{} has {entries} entries",
            field.full_name()
        );
        match value {
            Value::Message(inner) => check(inner),
            Value::List(entries) => entries.iter().filter_map(Value::as_message).for_each(check),
            Value::Map(entries) => entries.values().filter_map(Value::as_message).for_each(check),
            _ => {}
        }
    }
}
