//! The option `ndjson`, with which methods take newline-delimited JSON.

use outrider_proto::DESCRIPTORS;
use prost_reflect::{FieldDescriptor, MessageDescriptor, MethodDescriptor, Value};

use crate::json::field_path::FieldPathError;

/// The media type of requests and answers.
pub(crate) const MEDIA_TYPE: &str = "application/x-ndjson";

/// How a method takes lines.
#[derive(Debug, Clone)]
pub(crate) struct LinesRule {
    /// The field of the request that holds the entries.
    pub(crate) request: FieldDescriptor,
    /// The type of an entry.
    pub(crate) entry: MessageDescriptor,
    /// The field of the answer that holds the results.
    pub(crate) response: FieldDescriptor,
    /// Maximum number of entries in one call.
    pub(crate) max_entries: usize,
}

impl LinesRule {
    /// Returns the rule of a method, if it has one. Fails with the name of a field that does not
    /// exist or is not a list of messages.
    pub(crate) fn of(method: &MethodDescriptor) -> Result<Option<Self>, (String, FieldPathError)> {
        let Some(extension) = DESCRIPTORS.get_extension_by_name("outrider.options.v1.ndjson")
        else {
            return Ok(None);
        };
        let options = method.options();
        if !options.has_extension(&extension) {
            return Ok(None);
        }
        let option = options.get_extension(&extension);
        let of = |name: &str| {
            option
                .as_message()
                .and_then(|rule| rule.get_field_by_name(name).map(std::borrow::Cow::into_owned))
        };
        let field = |name: &str, message: MessageDescriptor| {
            let name = of(name).as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
            let field = message
                .get_field_by_name(&name)
                .ok_or_else(|| (name.clone(), FieldPathError::Unknown))?;
            match field.kind().as_message().filter(|_| field.is_list()) {
                Some(entry) => Ok((field.clone(), entry.clone())),
                None => Err((name, FieldPathError::NotList)),
            }
        };
        let (request, entry) = field("request_field", method.input())?;
        let (response, _) = field("response_field", method.output())?;
        let max_entries =
            of("max_entries").as_ref().and_then(Value::as_u32).unwrap_or(0).max(1) as usize;
        Ok(Some(Self { request, entry, response, max_entries }))
    }
}
