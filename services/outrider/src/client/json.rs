//! Messages as the JSON that REST answers: names as in the protos, payloads as `data` or `data_base64`.

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use outrider_proto::DESCRIPTORS;
use prost::Message;
use prost_reflect::{DynamicMessage, SerializeOptions};
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Value, value::RawValue};

/// A message in JSON, with the text of its payload, if it has one, as it stands.
pub struct Answer {
    pub value: Value,
    payload: Option<Box<RawValue>>,
}

impl Answer {
    /// From a message of the type of this name.
    pub fn of(name: &str, message: &impl Message) -> Result<Self> {
        let descriptor = DESCRIPTORS.get_message_by_name(name).with_context(|| format!("the protos have no {name}"))?;
        let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())?;
        let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(false);
        let mut value = message.serialize_with_options(serde_json::value::Serializer, &options)?;
        let payload = split_payload(&mut value);
        each_event(&mut value);
        Ok(Self { value, payload })
    }

    /// The payload's text, when it is JSON.
    pub fn payload(&self) -> Option<&str> {
        self.payload.as_deref().map(RawValue::get)
    }
}

impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (Value::Object(fields), Some(payload)) = (&self.value, &self.payload) else {
            return self.value.serialize(serializer);
        };
        let mut map = serializer.serialize_map(Some(fields.len() + 1))?;
        for (name, value) in fields {
            map.serialize_entry(name, value)?;
            if name == "event_type" {
                map.serialize_entry("data", payload)?;
            }
        }
        map.end()
    }
}

/// Events in lists have no payload; REST leaves the field out.
fn each_event(value: &mut Value) {
    if let Some(events) = value.get_mut("events").and_then(Value::as_array_mut) {
        for event in events {
            split_payload(event);
        }
    }
}

/// Takes `payload` out of an event: its text when it is the JSON that it is said to be, else `data_base64` in its place.
fn split_payload(value: &mut Value) -> Option<Box<RawValue>> {
    let content_type = value.get("content_type").and_then(Value::as_str).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = essence == "application/json" || essence.ends_with("+json");
    let fields = value.as_object_mut()?;
    let encoded = fields.get("payload")?.as_str()?.to_owned();
    fields.shift_remove("payload");
    if encoded.is_empty() {
        return None;
    }
    let text = STANDARD.decode(&encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    if let Some(raw) = text.filter(|_| is_json).and_then(|text| RawValue::from_string(text).ok()) {
        return Some(raw);
    }
    fields.insert("data_base64".to_owned(), Value::String(encoded));
    None
}

#[cfg(test)]
mod tests {
    use outrider_proto::{admin, dispatch};

    use super::*;

    fn event(content_type: &str, payload: &'static [u8]) -> String {
        let event = dispatch::Event { content_type: content_type.into(), payload: payload.into(), ..Default::default() };
        serde_json::to_string(&Answer::of("outrider.dispatch.v1.Event", &event).unwrap()).unwrap()
    }

    #[test]
    fn names_are_those_of_the_protos_and_defaults_are_written() {
        let endpoint = admin::Endpoint {
            endpoint_id: "ep_1".into(),
            target: Some(admin::endpoint::Target::Http(admin::HttpTarget { url: "http://x/".into() })),
            ..Default::default()
        };
        let value = Answer::of("outrider.admin.v1.Endpoint", &endpoint).unwrap().value;
        assert_eq!(value["http"]["url"], "http://x/");
        assert_eq!(value["state"], "ENDPOINT_STATE_UNSPECIFIED");
        assert_eq!(value["max_in_flight"], 0);
        assert!(value.get("create_time").is_none());
    }

    #[test]
    fn payloads_are_text_when_they_are_json() {
        let text = event("application/json", b"{\"a\":1.0,  \"a\":1e400}");
        assert!(text.contains("\"data\":{\"a\":1.0,  \"a\":1e400},"), "{text}");
        assert!(event("text/plain", b"1").contains("\"data_base64\":\"MQ==\""));
        assert!(event("application/json", b"{").contains("\"data_base64\":\"ew==\""));
        assert!(!event("application/json", b"").contains("\"payload\""));
        let list = dispatch::ListEventsResponse { events: vec![dispatch::Event::default()], ..Default::default() };
        let list = Answer::of("outrider.dispatch.v1.ListEventsResponse", &list).unwrap();
        assert!(!serde_json::to_string(&list).unwrap().contains("\"payload\""));
    }
}
