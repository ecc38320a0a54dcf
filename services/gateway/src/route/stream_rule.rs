//! How REST answers server streams: as server-sent events (WHATWG HTML).

use http::HeaderMap;
use outrider_model::Error;
use outrider_proto::DESCRIPTORS;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

/// The media type.
pub(crate) const MEDIA_TYPE: &str = "text/event-stream";
/// The header with which a client says where it was.
pub(crate) const LAST_EVENT_ID: &str = "last-event-id";

/// How a streaming method is served.
#[derive(Debug, Clone)]
pub(crate) struct StreamRule {
    pub(crate) output: MessageDescriptor,
    /// The field of a request that says where to resume.
    pub(crate) resume: Option<FieldDescriptor>,
    /// The field of a message that gives its position.
    pub(crate) id: Option<FieldDescriptor>,
}

impl StreamRule {
    pub(crate) fn of(input: &MessageDescriptor, output: &MessageDescriptor) -> Self {
        Self { output: output.clone(), resume: cursor_of(input), id: cursor_of(output) }
    }

    /// Sets the position from the client's header, which takes precedence over the query: the query
    /// says where the client began, the header says where it was.
    pub(crate) fn resume(
        &self,
        headers: &HeaderMap,
        message: &mut DynamicMessage,
    ) -> Result<(), Error> {
        let mut values = headers.get_all(LAST_EVENT_ID).iter();
        let (Some(field), Some(value)) = (&self.resume, values.next()) else { return Ok(()) };
        match (value.to_str(), values.next()) {
            (Ok(""), None) => Ok(()),
            (Ok(text), None) => {
                message.set_field(field, Value::String(text.to_owned()));
                Ok(())
            }
            _ => Err(Error::field(LAST_EVENT_ID, "must be one header with visible ASCII text")),
        }
    }
}

/// Returns the field that holds the position.
fn cursor_of(message: &MessageDescriptor) -> Option<FieldDescriptor> {
    let extension = DESCRIPTORS.get_extension_by_name("outrider.options.v1.resume_cursor")?;
    let is_cursor = |field: &FieldDescriptor| {
        matches!(field.kind(), Kind::String)
            && field.options().get_extension(&extension).as_ref() == &Value::Bool(true)
    };
    message.fields().find(is_cursor)
}
