//! Events in JSON for producers that publish in another way than by a REST request.

use bytes::Bytes;
use outrider_model::{Error, Reason};
use outrider_proto::{DESCRIPTORS, ingest::NewEvent};
use prost_reflect::Value;

use crate::{exchange::cost::Cost, json::read};

/// Reads an event from JSON, in the same form as the body of a request to publish it.
pub fn read_event(text: &Bytes) -> Result<NewEvent, Error> {
    let fault = || Error::internal("the protos have no event");
    let desc = DESCRIPTORS.get_message_by_name("outrider.ingest.v1.NewEvent").ok_or_else(fault)?;
    match read::message(text, &desc, &Cost::alone(text.len(), usize::MAX))?.value {
        Some(Value::Message(message)) => message.transcode_to().map_err(|_| fault()),
        _ => Err(Error::new(Reason::MalformedRequest, "the body must be a JSON object")),
    }
}
