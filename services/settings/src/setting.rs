//! The types that a setting can have, and their form in the configuration.

use std::{
    fmt::{self, Display},
    net::IpAddr,
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{Hidden, Port, Span};

/// What a value looks like in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Whole,
    /// A number.
    Number,
    /// A length of time with its unit.
    Length,
    /// Text.
    Text,
    /// Text that is or may contain a secret.
    Secret,
    /// A list.
    List,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "true or false",
            Self::Whole => "whole number",
            Self::Number => "number",
            Self::Length => "length of time",
            Self::Text => "text",
            Self::Secret => "secret text",
            Self::List => "list",
        })
    }
}

/// A type that a field of a section can have.
pub trait Setting: Sized {
    /// What its values look like.
    const KIND: Kind;

    /// Writes the value as the configuration shows it.
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;

    /// Reads a value of the configuration.
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

/// Types whose form in serde is their form in the configuration.
macro_rules! plain {
    ($($type:ty: $kind:ident),*) => {$(
        impl Setting for $type {
            const KIND: Kind = Kind::$kind;

            fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.serialize(serializer)
            }

            fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::deserialize(deserializer)
            }
        }
    )*};
}

plain!(bool: Flag, u32: Whole, u64: Whole, usize: Whole, f64: Number, String: Text, Port: Whole);

impl Setting for Hidden {
    const KIND: Kind = Kind::Secret;

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl Setting for Duration {
    const KIND: Kind = Kind::Length;

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Span(*self))
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(|error| {
            D::Error::custom(format!("\"{text}\" is not a length of time such as \"15s\": {error}"))
        })
    }
}

/// Empty text stands for none.
impl Setting for Option<IpAddr> {
    const KIND: Kind = Kind::Text;

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Some(address) => serializer.collect_str(address),
            None => serializer.serialize_str(""),
        }
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| D::Error::custom("must be an IP address")),
        }
    }
}

/// A value that the configuration has as text, in the form of its `Display` and `FromStr`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed<T>(pub T);

impl<T: Display + FromStr<Err: Display>> Setting for Parsed<T> {
    const KIND: Kind = Kind::Text;

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Self).map_err(D::Error::custom)
    }
}

impl<T: Setting> Setting for Vec<T> {
    const KIND: Kind = Kind::List;

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Written))
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = Vec::<Read<T>>::deserialize(deserializer)?;
        Ok(items.into_iter().map(|item| item.0).collect())
    }
}

/// An item of a list that is written.
struct Written<'a, T>(&'a T);

impl<T: Setting> Serialize for Written<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.write(serializer)
    }
}

/// An item of a list that was read.
struct Read<T>(T);

impl<'de, T: Setting> Deserialize<'de> for Read<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::read(deserializer).map(Self)
    }
}
