//! Converts messages to the JSON of REST: names as in the protos, payloads as `data` or
//! `data_base64`, and strings with JSON as JSON.

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use outrider_proto::DESCRIPTORS;
use prost::{Message, Name};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions};
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Value, value::RawValue};

/// A message in JSON, with the unchanged text of its payload, if it has one.
pub struct Answer {
    pub value: Value,
    payload: Option<Box<RawValue>>,
    /// The type of the message.
    descriptor: MessageDescriptor,
}

impl Answer {
    /// Converts a message.
    pub fn of<M: Message + Name>(message: &M) -> Result<Self> {
        let name = M::full_name();
        let descriptor = DESCRIPTORS
            .get_message_by_name(&name)
            .with_context(|| format!("the protos have no {name}"))?;
        let message =
            DynamicMessage::decode(descriptor.clone(), message.encode_to_vec().as_slice())?;
        let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(false);
        let mut value = message.serialize_with_options(serde_json::value::Serializer, &options)?;
        let payload = split_payload(&mut value);
        each_event(&mut value);
        json_texts(&descriptor, &mut value);
        Ok(Self { value, payload, descriptor })
    }

    /// Returns the items of a page: those of its only list of messages.
    pub fn items(&self) -> impl Iterator<Item = &Value> {
        let list = self
            .descriptor
            .fields()
            .find(|field| field.is_list() && matches!(field.kind(), Kind::Message(_)));
        list.and_then(|list| self.value.get(list.name())?.as_array()).into_iter().flatten()
    }

    /// Takes the value of the string that contains JSON, if the message has one that is set.
    pub fn take_json_text(&mut self) -> Option<Value> {
        let name = json_text_of(&self.descriptor)?.name().to_owned();
        self.value.as_object_mut()?.shift_remove(&name)
    }

    /// Returns the text of the payload, if it is JSON.
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

/// Events in lists have no payload, and REST omits the field.
fn each_event(value: &mut Value) {
    if let Some(events) = value.get_mut("events").and_then(Value::as_array_mut) {
        for event in events {
            split_payload(event);
        }
    }
}

/// Replaces strings that contain JSON by that JSON, recursively. Omits the field if the string is
/// empty.
fn json_texts(descriptor: &MessageDescriptor, value: &mut Value) {
    let Some(fields) = value.as_object_mut() else { return };
    if let Some(name) = json_text_of(descriptor).map(|field| field.name().to_owned()) {
        let text = fields.get(&name).and_then(Value::as_str).unwrap_or_default();
        match serde_json::from_str(text) {
            Ok(json) => fields[&name] = json,
            Err(_) if text.is_empty() => drop(fields.shift_remove(&name)),
            Err(_) => {}
        }
    }
    for field in descriptor.fields() {
        let (Kind::Message(inner), Some(value)) = (field.kind(), fields.get_mut(field.name()))
        else {
            continue;
        };
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| json_texts(&inner, item)),
            one => json_texts(&inner, one),
        }
    }
}

/// Returns the field that is marked as JSON text.
fn json_text_of(descriptor: &MessageDescriptor) -> Option<FieldDescriptor> {
    let extension = DESCRIPTORS.get_extension_by_name("outrider.options.v1.json_text")?;
    descriptor
        .fields()
        .find(|field| field.options().get_extension(&extension).as_bool() == Some(true))
}

/// Takes `payload` out of an event: returns its text if it is JSON, and otherwise replaces it by
/// `data_base64`.
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
        let event = dispatch::Event {
            content_type: content_type.into(),
            payload: payload.into(),
            ..Default::default()
        };
        serde_json::to_string(&Answer::of(&event).unwrap()).unwrap()
    }

    #[test]
    fn names_are_those_of_the_protos_and_defaults_are_written() {
        let endpoint = admin::Endpoint {
            endpoint_id: "ep_1".into(),
            target: Some(admin::endpoint::Target::Http(admin::HttpTarget {
                url: "http://x/".into(),
            })),
            ..Default::default()
        };
        let value = Answer::of(&endpoint).unwrap().value;
        assert_eq!(value["http"]["url"], "http://x/");
        assert_eq!(value["state"], "ENDPOINT_STATE_UNSPECIFIED");
        assert_eq!(value["max_in_flight"], 0);
        assert!(value.get("create_time").is_none());
    }

    #[test]
    fn strings_of_json_are_json() {
        let entry = |schema: &str| admin::EventType { schema: schema.into(), ..Default::default() };
        assert_eq!(
            Answer::of(&entry("{\"b\": 1, \"a\": [2]}")).unwrap().value["schema"].to_string(),
            r#"{"b":1,"a":[2]}"#
        );
        assert!(Answer::of(&entry("")).unwrap().value.get("schema").is_none());
        assert_eq!(Answer::of(&entry("{")).unwrap().value["schema"], "{");
        let one = admin::GetEventTypeResponse { definition: Some(entry("true")) };
        assert_eq!(Answer::of(&one).unwrap().value["definition"]["schema"], true);
        let list = admin::ListEventTypesResponse {
            event_types: vec![entry("true"), entry("")],
            ..Default::default()
        };
        let list = Answer::of(&list).unwrap();
        assert_eq!(
            list.items().map(|item| item["schema"] == true).collect::<Vec<_>>(),
            [true, false]
        );
    }

    #[test]
    fn payloads_are_text_when_they_are_json() {
        let text = event("application/json", b"{\"a\":1.0,  \"a\":1e400}");
        assert!(text.contains("\"data\":{\"a\":1.0,  \"a\":1e400},"), "{text}");
        assert!(event("text/plain", b"1").contains("\"data_base64\":\"MQ==\""));
        assert!(event("application/json", b"{").contains("\"data_base64\":\"ew==\""));
        assert!(!event("application/json", b"").contains("\"payload\""));
        let list = dispatch::ListEventsResponse {
            events: vec![dispatch::Event::default()],
            ..Default::default()
        };
        let list = Answer::of(&list).unwrap();
        assert!(!serde_json::to_string(&list).unwrap().contains("\"payload\""));
    }
}
