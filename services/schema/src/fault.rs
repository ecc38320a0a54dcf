//! What is wrong with a schema or with a payload.

/// What is wrong with a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The place in the schema, a JSON pointer (RFC 6901); empty for the whole.
    pub pointer: String,
    /// What is wrong.
    pub description: String,
}

impl Fault {
    pub(crate) fn at(pointer: impl Into<String>, description: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), description: description.into() }
    }
}

/// What is wrong with a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The place in the payload, a JSON pointer (RFC 6901); empty for the whole.
    pub pointer: String,
    /// What is wrong there; never the payload's values.
    pub description: String,
    /// The place in the schema, a JSON pointer: unlike `pointer` nothing of the payload.
    pub keyword: String,
}
