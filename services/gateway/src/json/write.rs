//! Writes a message as JSON: proto names, fields with default values, no absent fields, payloads as
//! their exact text.

use base64::{Engine, engine::general_purpose::STANDARD};
use outrider_model::Error;
use outrider_rpc::status::from_message;
use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, ReflectMessage, Value,
};
use serde::{Serialize, de::IgnoredAny};

use crate::{
    exchange::{answer::ErrorObject, fault::fault},
    json::payload::{self, DATA, DATA_BASE64},
};

/// Writes a whole message.
pub(crate) fn message(message: &DynamicMessage) -> Result<Vec<u8>, Error> {
    let mut writer = Writer { out: Vec::new() };
    writer.message(message)?;
    Ok(writer.out)
}

/// Writes one field of a message, or its default if it is absent.
pub(crate) fn field(message: &DynamicMessage, field: &FieldDescriptor) -> Result<Vec<u8>, Error> {
    let mut writer = Writer { out: Vec::new() };
    writer.value(&message.get_field(field), &field.kind())?;
    Ok(writer.out)
}

struct Writer {
    out: Vec<u8>,
}

impl Writer {
    fn message(&mut self, message: &DynamicMessage) -> Result<(), Error> {
        let desc = message.descriptor();
        match desc.full_name() {
            "google.rpc.Status" => {
                let status = message.transcode_to().map_err(fault("a status does not decode"))?;
                self.json(&ErrorObject::of(&from_message(&status), None))
            }
            // Times, durations, wrappers and similar types use the library's own mapping.
            name if name.starts_with("google.protobuf.") => self.json(message),
            _ => self.object(message),
        }
    }

    fn object(&mut self, message: &DynamicMessage) -> Result<(), Error> {
        let desc = message.descriptor();
        let (payload, text) = (payload::field_of(&desc), payload::text_of(&desc));
        let mut first = true;
        self.out.push(b'{');
        for field in desc.fields() {
            if payload.is_some_and(|payload| *payload == field) {
                self.payload(message, &field, &mut first)?;
            } else if text.is_some_and(|text| *text == field) {
                self.text(message, &field, &mut first)?;
            } else if !field.supports_presence() || message.has_field(&field) {
                self.name(field.name(), &mut first)?;
                self.value(&message.get_field(&field), &field.kind())?;
            }
        }
        self.out.push(b'}');
        Ok(())
    }

    /// Writes the payload as it is if it is valid JSON and has a JSON content type, otherwise in
    /// base64. An empty payload is not written.
    fn payload(
        &mut self,
        message: &DynamicMessage,
        field: &FieldDescriptor,
        first: &mut bool,
    ) -> Result<(), Error> {
        let value = message.get_field(field);
        let bytes = value.as_bytes().map(|bytes| bytes.as_ref()).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(());
        }
        let media_type = message.get_field_by_name("content_type");
        let promised =
            media_type.as_ref().and_then(|value| value.as_str()).is_none_or(payload::is_json);
        if promised
            && serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
            && std::str::from_utf8(bytes).is_ok()
        {
            self.name(DATA, first)?;
            self.out.extend_from_slice(bytes);
            Ok(())
        } else {
            self.name(DATA_BASE64, first)?;
            self.json(&STANDARD.encode(bytes))
        }
    }

    /// Writes the JSON of the string. An empty string is not written.
    fn text(
        &mut self,
        message: &DynamicMessage,
        field: &FieldDescriptor,
        first: &mut bool,
    ) -> Result<(), Error> {
        let value = message.get_field(field);
        let text = value.as_str().unwrap_or_default();
        if text.is_empty() {
            return Ok(());
        }
        self.name(field.name(), first)?;
        match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => self.out.extend_from_slice(text.as_bytes()),
            Err(_) => self.json(text)?,
        }
        Ok(())
    }

    fn value(&mut self, value: &Value, kind: &Kind) -> Result<(), Error> {
        match value {
            Value::Bool(value) => self.json(value),
            Value::I32(value) => self.json(value),
            Value::U32(value) => self.json(value),
            Value::I64(value) => self.json(&value.to_string()),
            Value::U64(value) => self.json(&value.to_string()),
            Value::F32(value) => self.float(f64::from(*value), value),
            Value::F64(value) => self.float(*value, value),
            Value::String(value) => self.json(value),
            Value::Bytes(value) => self.json(&STANDARD.encode(value)),
            Value::EnumNumber(number) => self.enumerated(*number, kind.as_enum()),
            Value::Message(value) => self.message(value),
            Value::List(values) => self.list(values, kind),
            Value::Map(values) => self.map(values.iter(), kind),
        }
    }

    fn list(&mut self, values: &[Value], kind: &Kind) -> Result<(), Error> {
        self.out.push(b'[');
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            self.value(value, kind)?;
        }
        self.out.push(b']');
        Ok(())
    }

    /// Sorted by key, so that equal messages give equal texts.
    fn map<'v>(
        &mut self,
        values: impl Iterator<Item = (&'v MapKey, &'v Value)>,
        kind: &Kind,
    ) -> Result<(), Error> {
        let kind = kind.as_message().map(|entry| entry.map_entry_value_field().kind());
        let kind = kind.ok_or_else(|| Error::internal("a map has no type of its entries"))?;
        let mut entries = values.map(|(key, value)| (key_text(key), value)).collect::<Vec<_>>();
        entries.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let mut first = true;
        self.out.push(b'{');
        for (key, value) in entries {
            self.name(&key, &mut first)?;
            self.value(value, &kind)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn float(&mut self, wide: f64, value: &impl Serialize) -> Result<(), Error> {
        if wide.is_finite() {
            self.json(value)
        } else if wide.is_nan() {
            self.json("NaN")
        } else {
            self.json(if wide > 0.0 { "Infinity" } else { "-Infinity" })
        }
    }

    /// Writes the name. Writes the number if a newer role uses a value that this gateway does not
    /// know.
    fn enumerated(&mut self, number: i32, names: Option<&EnumDescriptor>) -> Result<(), Error> {
        match names.and_then(|names| names.get_value(number)) {
            Some(value) => self.json(value.name()),
            None => self.json(&number),
        }
    }

    fn name(&mut self, name: &str, first: &mut bool) -> Result<(), Error> {
        if !std::mem::replace(first, false) {
            self.out.push(b',');
        }
        self.json(name)?;
        self.out.push(b':');
        Ok(())
    }

    fn json<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        serde_json::to_writer(&mut self.out, value)
            .map_err(fault("the answer cannot be written as JSON"))
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

#[cfg(test)]
mod tests {
    use outrider_model::Reason;
    use outrider_proto::{DESCRIPTORS, admin, dispatch, ingest};
    use outrider_rpc::status::to_message;
    use prost::Message;

    use super::*;

    fn written(name: &str, message: &impl Message) -> String {
        let desc = DESCRIPTORS.get_message_by_name(name).unwrap();
        let dynamic = DynamicMessage::decode(desc, message.encode_to_vec().as_slice()).unwrap();
        String::from_utf8(super::message(&dynamic).unwrap()).unwrap()
    }

    fn event(content_type: &str, payload: &'static [u8]) -> serde_json::Value {
        let event = dispatch::Event {
            content_type: content_type.into(),
            payload: payload.into(),
            ..Default::default()
        };
        serde_json::from_str(&written("outrider.dispatch.v1.Event", &event)).unwrap()
    }

    #[test]
    fn defaults_are_written_and_what_is_absent_is_not() {
        let answer = ingest::PublishEventResponse {
            event_id: "evt_\"1".into(),
            create_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 5_000_000 }),
            ..Default::default()
        };
        let text = written("outrider.ingest.v1.PublishEventResponse", &answer);
        assert_eq!(
            text,
            concat!(
                r#"{"event_id":"evt_\"1","duplicate":false,"delivery_count":0,"#,
                r#""create_time":"2023-11-14T22:13:20.005Z","warnings":[]}"#
            )
        );
        let text = written(
            "outrider.ingest.v1.PublishEventResponse",
            &ingest::PublishEventResponse::default(),
        );
        assert!(!text.contains("create_time"));
    }

    #[test]
    fn payloads_are_text_when_they_are_json() {
        let text = written(
            "outrider.dispatch.v1.Event",
            &dispatch::Event {
                content_type: "application/x+json".into(),
                payload: "{\"a\":1.0,  \"a\":1e400}".into(),
                ..Default::default()
            },
        );
        assert!(text.contains("\"data\":{\"a\":1.0,  \"a\":1e400},"), "{text}");
        assert_eq!(event("application/json", b"{")["data_base64"], "ew==");
        assert_eq!(event("application/json", b"\"\xff\"")["data_base64"], "Iv8i");
        assert_eq!(event("text/plain", b"1")["data_base64"], "MQ==");
        let empty = event("text/plain", b"");
        assert!(
            empty.get("data").is_none()
                && empty.get("data_base64").is_none()
                && empty.get("payload").is_none()
        );
    }

    #[test]
    fn json_texts_stand_as_they_are() {
        let written = |schema: &str| {
            let entry = admin::EventType { schema: schema.into(), ..Default::default() };
            written("outrider.admin.v1.EventType", &entry)
        };
        assert!(written("{ \"maximum\": 1.0e2 }").contains("\"schema\":{ \"maximum\": 1.0e2 },"));
        assert!(written("false").contains("\"schema\":false,"));
        assert!(!written("").contains("schema"));
        // Whatever text a role stores, the answer is valid JSON.
        assert!(written("{").contains("\"schema\":\"{\","));
    }

    #[test]
    fn maps_are_sorted_and_enums_named() {
        let event = dispatch::Event {
            headers: [("b", "2"), ("a", "1"), ("c", "3")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            routing_outcome: dispatch::RoutingOutcome::Routed.into(),
            origin: Some(dispatch::Origin { kind: 77, actor: String::new() }),
            ..Default::default()
        };
        let text = written("outrider.dispatch.v1.Event", &event);
        assert!(text.contains(r#""headers":{"a":"1","b":"2","c":"3"}"#), "{text}");
        assert!(text.contains(r#""routing_outcome":"ROUTING_OUTCOME_ROUTED""#), "{text}");
        assert!(text.contains(r#""kind":77"#), "{text}");
    }

    #[test]
    fn an_error_inside_has_the_shape_of_errors() {
        let error = to_message(Error::field("event_type", "is required"));
        let result = ingest::BatchPublishEventsResult {
            result: Some(ingest::batch_publish_events_result::Result::Error(error)),
        };
        let text = written("outrider.ingest.v1.BatchPublishEventsResult", &result);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["error"]["reason"], Reason::InvalidField.as_str());
        assert_eq!(value["error"]["code"], 400);
        assert_eq!(value["error"]["violations"][0]["field"], "event_type");
        assert!(value.get("accepted").is_none());
    }
}
