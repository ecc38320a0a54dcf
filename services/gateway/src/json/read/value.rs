//! Reads any JSON value as the expected message or field.

use std::fmt;

use outrider_rpc::bounds;
use prost_reflect::{DynamicMessage, Kind, Value};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    context::{Expected, Path, Seed},
    object,
};
use crate::{
    exchange::cost,
    json::scalar::{self, Scalar},
};

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Value>, D::Error> {
        let value = match self.expected {
            // Free-form JSON as messages uses the library's own mapping.
            Expected::Single(Kind::Message(desc))
                if matches!(
                    desc.full_name(),
                    "google.protobuf.Any"
                        | "google.protobuf.Struct"
                        | "google.protobuf.Value"
                        | "google.protobuf.ListValue"
                ) =>
            {
                DynamicMessage::deserialize(desc.clone(), deserializer)
                    .map(|message| Some(Value::Message(message)))
            }
            _ => deserializer.deserialize_any(self),
        };
        value.inspect_err(|_| self.context.locate(self.path))
    }
}

impl Seed<'_> {
    fn single<E: serde::de::Error>(&self, scalar: Scalar<'_>) -> Result<Option<Value>, E> {
        match self.expected {
            Expected::Single(kind) => {
                let text = if let Scalar::Text(text) = &scalar { 2 * text.len() } else { 0 };
                self.context.spend(cost::VALUE + text, self.path)?;
                scalar::from_json(kind, scalar).map(Some).map_err(|expected| self.wrong(expected))
            }
            _ => Err(self.wrong(self.expected.requirement())),
        }
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Option<Value>, E> {
        self.single(Scalar::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Option<Value>, E> {
        self.single(Scalar::Signed(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Option<Value>, E> {
        self.single(Scalar::Unsigned(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Option<Value>, E> {
        self.single(Scalar::Float(value))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Option<Value>, E> {
        self.single(Scalar::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Option<Value>, A::Error> {
        let Expected::List(kind, most) = self.expected else {
            return Err(self.wrong(match self.expected {
                Expected::Single(kind) if scalar::is_scalar(kind) => "must not be a list",
                _ => self.expected.requirement(),
            }));
        };
        let mut values = Vec::new();
        loop {
            let path = Path::Item(self.path, values.len());
            let seed = Seed { path: &path, expected: Expected::Single(kind), ..self };
            if values.len() >= most as usize {
                // Checks for one more item without decoding it.
                return match items.next_element::<IgnoredAny>()? {
                    Some(_) => Err(self.wrong(bounds::too_many(most))),
                    None => Ok(Some(Value::List(values))),
                };
            }
            match items.next_element_seed(seed)? {
                Some(Some(value)) => values.push(value),
                Some(None) => return Err(seed.wrong("must not be null")),
                None => return Ok(Some(Value::List(values))),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Option<Value>, A::Error> {
        match self.expected {
            Expected::Map(entry, most) => object::entries(self, entry, most, map),
            Expected::Single(Kind::Message(desc))
                if !scalar::is_scalar(&Kind::Message(desc.clone())) =>
            {
                object::message(self, desc, map)
            }
            Expected::Single(_) => Err(self.wrong("must not be an object")),
            Expected::List(..) => Err(self.wrong(self.expected.requirement())),
        }
    }
}
