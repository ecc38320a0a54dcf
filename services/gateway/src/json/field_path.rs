//! Paths of fields within a message, as templates, queries and headers name them.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use crate::json::{payload, scalar, secret};

/// One or more fields. All but the last are singular messages.
#[derive(Debug, Clone)]
pub(crate) struct FieldPath(Vec<FieldDescriptor>);

/// Why a text does not name a usable field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldPathError {
    /// No field has that name.
    #[error("names no field")]
    Unknown,
    /// A part before the last is not a message.
    #[error("names a field of something that is not an object")]
    NotMessage,
    /// The last part cannot be given as a text.
    #[error("is not a single value")]
    NotScalar,
    /// The field is a secret.
    #[error("is a secret, which must not be part of a URL")]
    Secret,
    /// The field is not a list of messages.
    #[error("is not a list of messages")]
    NotList,
}

impl FieldPath {
    /// Resolves dotted names. Each may be written as in the proto or in camelCase. The last field
    /// must hold scalars.
    pub(crate) fn resolve(message: &MessageDescriptor, text: &str) -> Result<Self, FieldPathError> {
        let mut message = message.clone();
        let mut fields: Vec<FieldDescriptor> = Vec::new();
        let mut names = text.split('.').peekable();
        while let Some(name) = names.next() {
            let field = field(&message, name).ok_or(FieldPathError::Unknown)?;
            match (names.peek(), field.kind()) {
                (None, kind) if field.is_map() || !scalar::is_scalar(&kind) => {
                    return Err(FieldPathError::NotScalar);
                }
                (None, _) => {}
                (Some(_), kind) if scalar::is_scalar(&kind) => {
                    return Err(FieldPathError::NotMessage);
                }
                (Some(_), Kind::Message(inner)) if !field.is_list() && !field.is_map() => {
                    message = inner
                }
                (Some(_), _) => return Err(FieldPathError::NotMessage),
            }
            fields.push(field);
        }
        Ok(Self(fields))
    }

    /// Returns the path with the names of the proto.
    pub(crate) fn name(&self) -> String {
        self.0.iter().map(FieldDescriptor::name).collect::<Vec<_>>().join(".")
    }

    /// Returns whether the path leads to a secret, or through one.
    pub(crate) fn is_secret(&self) -> bool {
        self.0.iter().any(secret::is_secret)
    }

    pub(crate) fn first(&self) -> &FieldDescriptor {
        &self.0[0]
    }

    pub(crate) fn last(&self) -> &FieldDescriptor {
        &self.0[self.0.len() - 1]
    }

    /// Returns the value, if it is set.
    pub(crate) fn get(&self, message: &DynamicMessage) -> Option<Value> {
        let (field, rest) = self.0.split_first()?;
        get(message, field, rest)
    }

    /// Returns the field itself. Creates the messages on the way to it.
    pub(crate) fn entry<'m>(&self, message: &'m mut DynamicMessage) -> Option<&'m mut Value> {
        let (last, parents) = self.0.split_last()?;
        let mut message = message;
        for field in parents {
            message = message.get_field_mut(field).as_message_mut()?;
        }
        Some(message.get_field_mut(last))
    }

    /// Returns whether both name the same field.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

fn get(
    message: &DynamicMessage,
    field: &FieldDescriptor,
    rest: &[FieldDescriptor],
) -> Option<Value> {
    let value = message.has_field(field).then(|| message.get_field(field))?;
    match rest {
        [] => Some(value.into_owned()),
        [next, rest @ ..] => get(value.as_message()?, next, rest),
    }
}

/// Finds a field by either spelling of its name. Payloads have no name of their own in REST.
pub(crate) fn field(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message
        .get_field_by_name(name)
        .or_else(|| message.get_field_by_json_name(name))
        .filter(|field| payload::field_of(message).is_none_or(|payload| payload != field))
}
