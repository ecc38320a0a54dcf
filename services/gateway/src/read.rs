//! JSON to a message, strictly and in one pass: what is wrong is named by its path, a payload's
//! text is kept as it stands.

mod object;
#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, RefCell},
    fmt,
};

use bytes::Bytes;
use outrider_model::{Error, FieldViolation, Reason, limits, text::quoted};
use outrider_rpc::bounds;
use outrider_shares::Exhausted;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::{
    cost::{self, Cost, Refused},
    scalar::{self, Scalar},
};

/// What a body gave.
#[derive(Debug)]
pub(crate) struct Read {
    /// None for `null`.
    pub(crate) value: Option<Value>,
    /// The fields that the outermost object names, in the spelling of the proto.
    pub(crate) present: Vec<String>,
}

/// Reads a whole message.
pub(crate) fn message(text: &Bytes, desc: &MessageDescriptor, cost: &Cost) -> Result<Read, Error> {
    read(text, &Path::Root(""), Shape::Single(&Kind::Message(desc.clone())), cost)
}

/// Reads the value of one field; errors name it first.
pub(crate) fn field(text: &Bytes, field: &FieldDescriptor, cost: &Cost) -> Result<Read, Error> {
    let kind = field.kind();
    read(text, &Path::Root(field.name()), Shape::of(field, &kind), cost)
}

fn read(body: &Bytes, path: &Path<'_>, shape: Shape<'_>, cost: &Cost) -> Result<Read, Error> {
    let text = std::str::from_utf8(body).map_err(|error| {
        Error::new(
            Reason::MalformedRequest,
            format!("the body is not UTF-8 at byte {}", error.valid_up_to()),
        )
    })?;
    // Editors and some clients write a byte order mark, which a parser may ignore (RFC 8259,
    // section 8.1).
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let context = Context {
        body,
        cost,
        fault: RefCell::default(),
        present: RefCell::default(),
        outermost: Cell::new(true),
        no_room: Cell::new(None),
    };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Seed { context: &context, path, shape }.deserialize(&mut deserializer);
    match value.and_then(|value| deserializer.end().map(|()| value)) {
        Ok(value) => Ok(Read { value, present: context.present.into_inner() }),
        Err(error) => Err(context.error(&error)),
    }
}

/// What one reading shares.
struct Context<'a> {
    body: &'a Bytes,
    cost: &'a Cost,
    fault: RefCell<Option<Fault>>,
    present: RefCell<Vec<String>>,
    outermost: Cell<bool>,
    /// The reading ended for want of room.
    no_room: Cell<Option<Exhausted>>,
}

struct Fault {
    reason: Reason,
    field: String,
    /// None when the text is not JSON at that place.
    description: Option<String>,
}

impl Context<'_> {
    /// Notes what is wrong; serde only needs to stop.
    fn fail<E: serde::de::Error>(
        &self,
        reason: Reason,
        path: &Path<'_>,
        description: impl Into<String>,
    ) -> E {
        *self.fault.borrow_mut() =
            Some(Fault { reason, field: path.to_string(), description: Some(description.into()) });
        E::custom("refused")
    }

    /// Notes that memory is taken, or that there is no more.
    fn spend<E: serde::de::Error>(&self, bytes: usize, path: &Path<'_>) -> Result<(), E> {
        self.cost.spend(bytes).map_err(|refused| match refused {
            Refused::TooMuch(most) => self.fail(
                Reason::TooLarge,
                path,
                format!("takes more than the {most} bytes of memory that the request may take"),
            ),
            Refused::NoRoom(exhausted) => {
                self.no_room.set(Some(exhausted));
                E::custom("refused")
            }
        })
    }

    /// Notes where the text stopped being JSON: the innermost place is noted first and stays.
    fn locate(&self, path: &Path<'_>) {
        self.fault.borrow_mut().get_or_insert_with(|| Fault {
            reason: Reason::MalformedRequest,
            field: path.to_string(),
            description: None,
        });
    }

    fn error(self, error: &serde_json::Error) -> Error {
        let syntax = || format!("is not JSON: {error}");
        let deep = error.to_string().starts_with("recursion limit exceeded");
        let syntax = || {
            if deep { format!("is nested deeper than {}", limits::JSON_DEPTH) } else { syntax() }
        };
        if let Some(exhausted) = self.no_room.get() {
            return exhausted.into();
        }
        match self.fault.into_inner() {
            Some(Fault { reason, field, description }) if !field.is_empty() => {
                let description = description.unwrap_or_else(syntax);
                Error { reason, ..Error::fields(vec![FieldViolation { field, description }]) }
            }
            Some(Fault { reason, description: Some(description), .. }) => {
                Error::new(reason, format!("the body {description}"))
            }
            _ => Error::new(Reason::MalformedRequest, format!("the body {}", syntax())),
        }
    }
}

/// Where the reader stands.
enum Path<'a> {
    Root(&'a str),
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
    Key(&'a Path<'a>, &'a str),
}

/// Keys are the client's, and as long as it likes.
const SHOWN_KEY_CHARACTERS: usize = 64;

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |key: &str| key.chars().take(SHOWN_KEY_CHARACTERS).collect::<String>();
        match self {
            Self::Root(name) => f.write_str(name),
            Self::Field(Self::Root(""), name) => f.write_str(&shown(name)),
            Self::Field(parent, name) => write!(f, "{parent}.{}", shown(name)),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
            Self::Key(parent, key) => write!(f, "{parent}[{}]", quoted(&shown(key))),
        }
    }
}

/// What is expected.
#[derive(Clone, Copy)]
enum Shape<'a> {
    Single(&'a Kind),
    /// By the type of its entries, and how many there may be.
    List(&'a Kind, u32),
    Map(&'a MessageDescriptor, u32),
}

impl<'a> Shape<'a> {
    fn of(field: &FieldDescriptor, kind: &'a Kind) -> Self {
        match kind {
            Kind::Message(entry) if field.is_map() => Self::Map(entry, bounds::max_items(field)),
            _ if field.is_list() => Self::List(kind, bounds::max_items(field)),
            _ => Self::Single(kind),
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::List(..) => "must be a list",
            Self::Single(_) | Self::Map(..) => "must be an object",
        }
    }
}

#[derive(Clone, Copy)]
struct Seed<'a> {
    context: &'a Context<'a>,
    path: &'a Path<'a>,
    shape: Shape<'a>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Value>, D::Error> {
        let value = match self.shape {
            // Free-form JSON as messages: the library's own mapping.
            Shape::Single(Kind::Message(desc))
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
    fn wrong<E: serde::de::Error>(&self, description: impl Into<String>) -> E {
        self.context.fail(Reason::InvalidField, self.path, description)
    }

    fn single<E: serde::de::Error>(&self, scalar: Scalar<'_>) -> Result<Option<Value>, E> {
        match self.shape {
            Shape::Single(kind) => {
                let text = if let Scalar::Text(text) = &scalar { 2 * text.len() } else { 0 };
                self.context.spend(cost::VALUE + text, self.path)?;
                scalar::from_json(kind, scalar).map(Some).map_err(|expected| self.wrong(expected))
            }
            _ => Err(self.wrong(self.shape.expected())),
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
        let Shape::List(kind, most) = self.shape else {
            return Err(self.wrong(match self.shape {
                Shape::Single(kind) if scalar::is_scalar(kind) => "must not be a list",
                _ => self.shape.expected(),
            }));
        };
        let mut values = Vec::new();
        loop {
            let path = Path::Item(self.path, values.len());
            let seed = Seed { path: &path, shape: Shape::Single(kind), ..self };
            if values.len() >= most as usize {
                // Whether there is one more is seen without decoding it.
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
        match self.shape {
            Shape::Map(entry, most) => object::entries(self, entry, most, map),
            Shape::Single(Kind::Message(desc))
                if !scalar::is_scalar(&Kind::Message(desc.clone())) =>
            {
                object::message(self, desc, map)
            }
            Shape::Single(_) => Err(self.wrong("must not be an object")),
            Shape::List(..) => Err(self.wrong(self.shape.expected())),
        }
    }
}
