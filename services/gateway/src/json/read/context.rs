//! The state of one reading: the position in the message, what is expected there, and what went
//! wrong.

use std::{
    cell::{Cell, RefCell},
    fmt,
};

use bytes::Bytes;
use outrider_model::{Error, FieldViolation, Reason, limits, text::quoted};
use outrider_rpc::bounds;
use outrider_shares::Exhausted;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use crate::exchange::cost::{Cost, Refused};

/// The data that one reading shares.
pub(super) struct Context<'a> {
    pub(super) body: &'a Bytes,
    pub(super) cost: &'a Cost,
    pub(super) fault: RefCell<Option<Fault>>,
    pub(super) present: RefCell<Vec<String>>,
    pub(super) outermost: Cell<bool>,
    /// Set if the reading ended for lack of room.
    pub(super) no_room: Cell<Option<Exhausted>>,
}

pub(super) struct Fault {
    reason: Reason,
    field: String,
    /// `None` if the text is not JSON at that place.
    description: Option<String>,
}

impl Context<'_> {
    /// Records what is wrong. serde only needs to stop.
    pub(super) fn fail<E: serde::de::Error>(
        &self,
        reason: Reason,
        path: &Path<'_>,
        description: impl Into<String>,
    ) -> E {
        *self.fault.borrow_mut() =
            Some(Fault { reason, field: path.to_string(), description: Some(description.into()) });
        E::custom("refused")
    }

    /// Records that memory is taken. Fails if there is not enough.
    pub(super) fn spend<E: serde::de::Error>(
        &self,
        bytes: usize,
        path: &Path<'_>,
    ) -> Result<(), E> {
        self.cost.spend(bytes).map_err(|refused| match refused {
            Refused::TooMuch(most) => self.fail(
                Reason::TooLarge,
                path,
                format!(
                    "needs more than the {most} bytes of memory that decoding the request may take"
                ),
            ),
            Refused::NoRoom(exhausted) => {
                self.no_room.set(Some(exhausted));
                E::custom("refused")
            }
        })
    }

    /// Records where the text stopped being JSON. The innermost place is recorded first and stays.
    pub(super) fn locate(&self, path: &Path<'_>) {
        self.fault.borrow_mut().get_or_insert_with(|| Fault {
            reason: Reason::MalformedRequest,
            field: path.to_string(),
            description: None,
        });
    }

    pub(super) fn error(self, error: &serde_json::Error) -> Error {
        let syntax = || format!("is not JSON: {error}");
        let deep = error.to_string().starts_with("recursion limit exceeded");
        let syntax = || {
            if deep {
                format!("is nested more than {} levels deep", limits::JSON_DEPTH)
            } else {
                syntax()
            }
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

/// The position in the message.
pub(super) enum Path<'a> {
    Root(&'a str),
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
    Key(&'a Path<'a>, &'a str),
}

/// The client chooses the keys, and they may have any length.
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

/// What is expected at a position.
#[derive(Clone, Copy)]
pub(super) enum Expected<'a> {
    Single(&'a Kind),
    /// The type of the entries, and their maximum number.
    List(&'a Kind, u32),
    Map(&'a MessageDescriptor, u32),
}

impl<'a> Expected<'a> {
    pub(super) fn of(field: &FieldDescriptor, kind: &'a Kind) -> Self {
        match kind {
            Kind::Message(entry) if field.is_map() => Self::Map(entry, bounds::max_items(field)),
            _ if field.is_list() => Self::List(kind, bounds::max_items(field)),
            _ => Self::Single(kind),
        }
    }

    pub(super) fn requirement(self) -> &'static str {
        match self {
            Self::List(..) => "must be a list",
            Self::Single(_) | Self::Map(..) => "must be an object",
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Seed<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) path: &'a Path<'a>,
    pub(super) expected: Expected<'a>,
}

impl Seed<'_> {
    pub(super) fn wrong<E: serde::de::Error>(&self, description: impl Into<String>) -> E {
        self.context.fail(Reason::InvalidField, self.path, description)
    }
}
