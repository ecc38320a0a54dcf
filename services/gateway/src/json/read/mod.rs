//! Reads a message from JSON, strictly and in one pass. Errors name the path of the faulty field.
//! The text of payloads is kept as it is.

mod context;
mod object;
#[cfg(test)]
mod tests;
mod value;

use std::cell::{Cell, RefCell};

use bytes::Bytes;
use outrider_model::{Error, Reason};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, Value};
use serde::de::DeserializeSeed;

use self::context::{Context, Expected, Path, Seed};
use crate::exchange::cost::Cost;

/// The result of reading a body.
#[derive(Debug)]
pub(crate) struct Read {
    /// `None` for `null`.
    pub(crate) value: Option<Value>,
    /// The fields that the outermost object names, in the spelling of the proto.
    pub(crate) present: Vec<String>,
}

/// Reads a whole message.
pub(crate) fn message(text: &Bytes, desc: &MessageDescriptor, cost: &Cost) -> Result<Read, Error> {
    read(text, &Path::Root(""), Expected::Single(&Kind::Message(desc.clone())), cost)
}

/// Reads the value of one field. Paths in errors begin with its name.
pub(crate) fn field(text: &Bytes, field: &FieldDescriptor, cost: &Cost) -> Result<Read, Error> {
    let kind = field.kind();
    read(text, &Path::Root(field.name()), Expected::of(field, &kind), cost)
}

fn read(body: &Bytes, path: &Path<'_>, expected: Expected<'_>, cost: &Cost) -> Result<Read, Error> {
    let text = std::str::from_utf8(body).map_err(|error| {
        Error::new(
            Reason::MalformedRequest,
            format!("the body is not UTF-8 at byte {}", error.valid_up_to()),
        )
    })?;
    // Editors and some clients write a byte order mark, which a parser may ignore (RFC 8259,
    // section 8.1).
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let context = Context {
        body,
        cost,
        fault: RefCell::default(),
        present: RefCell::default(),
        outermost: Cell::new(true),
        no_room: Cell::new(None),
    };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Seed { context: &context, path, expected }.deserialize(&mut deserializer);
    match value.and_then(|value| deserializer.end().map(|()| value)) {
        Ok(value) => Ok(Read { value, present: context.present.into_inner() }),
        Err(error) => Err(context.error(&error)),
    }
}
