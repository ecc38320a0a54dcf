//! Faults of schemas, and violations by payloads.

/// A fault of a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The place in the schema, a JSON pointer (RFC 6901); empty for the whole.
    pub pointer: String,
    /// A description of the fault.
    pub description: String,
}

impl Fault {
    pub(crate) fn at(pointer: impl Into<String>, description: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), description: description.into() }
    }
}

/// A violation of a schema by a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The place in the payload, a JSON pointer (RFC 6901); empty for the whole.
    pub pointer: String,
    /// A description of the violation, without values of the payload.
    pub description: String,
    /// The place in the schema, a JSON pointer. Unlike `pointer`, it contains nothing of the
    /// payload.
    pub keyword: String,
}
