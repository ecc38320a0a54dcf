//! JSON objects: messages and maps.

use std::collections::{HashMap, HashSet};

use outrider_model::{Reason, json::is_shallow, limits};
use outrider_rpc::bounds;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage, Value,
};
use serde::de::MapAccess;
use serde_json::value::RawValue;

use super::context::{Expected, Path, Seed};
use crate::{
    exchange::cost,
    json::{
        field_path,
        payload::{self, DATA, DATA_BASE64, DATA_BASE64_CAMEL},
        scalar::{self, Scalar},
    },
};

const TWICE: &str = "is given twice";

/// Reads a message from the members of an object.
pub(super) fn message<'de, A: MapAccess<'de>>(
    seed: Seed<'_>,
    desc: &MessageDescriptor,
    mut map: A,
) -> Result<Option<Value>, A::Error> {
    seed.context.spend(cost::MESSAGE, seed.path)?;
    let mut object = Object {
        seed,
        payload: payload::field_of(desc),
        text: payload::text_of(desc),
        message: DynamicMessage::new(desc.clone()),
        seen: HashSet::new(),
        payload_given: None,
        outermost: seed.context.outermost.replace(false),
    };
    while let Some(key) = map.next_key::<String>()? {
        object.member(&key, &mut map)?;
    }
    Ok(Some(Value::Message(object.message)))
}

/// A message under construction from an object.
struct Object<'a> {
    seed: Seed<'a>,
    payload: Option<&'static FieldDescriptor>,
    /// The field that keeps the text of its JSON.
    text: Option<&'static FieldDescriptor>,
    message: DynamicMessage,
    /// Numbers of the fields that were given, including those given as null.
    seen: HashSet<u32>,
    /// The name under which the payload was given.
    payload_given: Option<&'static str>,
    /// Whether this is the outermost object.
    outermost: bool,
}

impl Object<'_> {
    fn member<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match (self.payload, key) {
            (Some(payload), DATA) => self.data(payload, map),
            (Some(payload), DATA_BASE64 | DATA_BASE64_CAMEL) => self.data_base64(payload, map),
            _ => match field_path::field(&self.message.descriptor(), key) {
                Some(field) => self.field(&field, map),
                None => Err(self.fail(Reason::MalformedRequest, key, "is not a known field")),
            },
        }
    }

    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        field: &FieldDescriptor,
        map: &mut A,
    ) -> Result<(), A::Error> {
        let name = field.name();
        if !self.seen.insert(field.number()) {
            return Err(self.fail(Reason::MalformedRequest, name, TWICE));
        }
        self.note(name);
        if self.text == Some(field) {
            return self.text(field, map);
        }
        let (path, kind) = (Path::Field(self.seed.path, name), field.kind());
        let seed = Seed { path: &path, expected: Expected::of(field, &kind), ..self.seed };
        let Some(value) = map.next_value_seed(seed)? else { return Ok(()) };
        let rival = field
            .containing_oneof()
            .and_then(|oneof| oneof.fields().find(|other| self.message.has_field(other)));
        if let Some(rival) = rival {
            return Err(self.fail(
                Reason::InvalidField,
                name,
                &format!("must not be given together with {}", rival.name()),
            ));
        }
        self.message.set_field(field, value);
        Ok(())
    }

    /// Keeps the text of the value as the string. `null` is no value.
    fn text<'de, A: MapAccess<'de>>(
        &mut self,
        field: &FieldDescriptor,
        map: &mut A,
    ) -> Result<(), A::Error> {
        let raw = self.raw(field.name(), map)?;
        if raw.get() != "null" {
            self.spend(field.name(), 3 * raw.get().len())?;
            self.message.set_field(field, Value::String(raw.get().to_owned()));
        }
        Ok(())
    }

    /// Returns the text of a value.
    fn raw<'de, A: MapAccess<'de>>(
        &self,
        name: &str,
        map: &mut A,
    ) -> Result<&'de RawValue, A::Error> {
        let path = Path::Field(self.seed.path, name);
        let raw: &'de RawValue =
            map.next_value().inspect_err(|_| self.seed.context.locate(&path))?;
        if is_shallow(raw.get().as_bytes()) {
            return Ok(raw);
        }
        let description = format!("is nested more than {} levels deep", limits::JSON_DEPTH);
        Err(self.fail(Reason::MalformedRequest, name, &description))
    }

    /// Keeps the text of the value as the payload, which shares the memory of the request's body.
    fn data<'de, A: MapAccess<'de>>(
        &mut self,
        payload: &FieldDescriptor,
        map: &mut A,
    ) -> Result<(), A::Error> {
        self.begin_payload(DATA)?;
        let raw = self.raw(DATA, map)?;
        self.spend(DATA, 2 * raw.get().len())?;
        self.message.set_field(
            payload,
            Value::Bytes(self.seed.context.body.slice_ref(raw.get().as_bytes())),
        );
        Ok(())
    }

    fn data_base64<'de, A: MapAccess<'de>>(
        &mut self,
        payload: &FieldDescriptor,
        map: &mut A,
    ) -> Result<(), A::Error> {
        self.begin_payload(DATA_BASE64)?;
        let path = Path::Field(self.seed.path, DATA_BASE64);
        let seed = Seed { path: &path, expected: Expected::Single(&Kind::Bytes), ..self.seed };
        if let Some(value) = map.next_value_seed(seed)? {
            self.message.set_field(payload, value);
        }
        Ok(())
    }

    fn begin_payload<E: serde::de::Error>(&mut self, name: &'static str) -> Result<(), E> {
        self.note(name);
        match self.payload_given.replace(name) {
            None => Ok(()),
            Some(before) if before == name => Err(self.fail(Reason::MalformedRequest, name, TWICE)),
            Some(before) => Err(self.fail(
                Reason::InvalidField,
                name,
                &format!("must not be given together with {before}"),
            )),
        }
    }

    fn spend<E: serde::de::Error>(&self, name: &str, bytes: usize) -> Result<(), E> {
        self.seed.context.spend(bytes, &Path::Field(self.seed.path, name))
    }

    fn note(&self, name: &str) {
        if self.outermost {
            self.seed.context.present.borrow_mut().push(name.to_owned());
        }
    }

    fn fail<E: serde::de::Error>(&self, reason: Reason, name: &str, description: &str) -> E {
        self.seed.context.fail(reason, &Path::Field(self.seed.path, name), description)
    }
}

/// Reads a map from the members of an object.
pub(super) fn entries<'de, A: MapAccess<'de>>(
    seed: Seed<'_>,
    entry: &MessageDescriptor,
    most: u32,
    mut map: A,
) -> Result<Option<Value>, A::Error> {
    let (key_kind, value_kind) =
        (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
    seed.context.outermost.set(false);
    let mut values = HashMap::new();
    while let Some(text) = map.next_key::<String>()? {
        if values.len() >= most as usize {
            return Err(seed.wrong(bounds::too_many(most)));
        }
        seed.context.spend(cost::ENTRY + text.len(), seed.path)?;
        let path = Path::Key(seed.path, &text);
        let seed = Seed { path: &path, expected: Expected::Single(&value_kind), ..seed };
        let key = map_key(&key_kind, &text)
            .map_err(|expected| seed.wrong(format!("has a key that {expected}")))?;
        if values.contains_key(&key) {
            return Err(seed.context.fail(Reason::MalformedRequest, &path, TWICE));
        }
        let Some(value) = map.next_value_seed(seed)? else {
            return Err(seed.wrong("must not be null"));
        };
        values.insert(key, value);
    }
    Ok(Some(Value::Map(values)))
}

fn map_key(kind: &Kind, text: &str) -> Result<MapKey, String> {
    let value = match kind {
        Kind::Bool => scalar::from_text(kind, text)?,
        _ => scalar::from_json(kind, Scalar::Text(text))?,
    };
    match value {
        Value::Bool(key) => Ok(MapKey::Bool(key)),
        Value::I32(key) => Ok(MapKey::I32(key)),
        Value::I64(key) => Ok(MapKey::I64(key)),
        Value::U32(key) => Ok(MapKey::U32(key)),
        Value::U64(key) => Ok(MapKey::U64(key)),
        Value::String(key) => Ok(MapKey::String(key)),
        _ => Err("is not supported".into()),
    }
}
