//! Single values from JSON, and from the texts of queries, paths and headers. Errors say what is
//! expected, and never repeat the input.

use std::borrow::Cow;

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use outrider_rpc::bounds;
use prost_reflect::{DynamicMessage, EnumDescriptor, Kind, MessageDescriptor, Value};
use serde::de::{
    IntoDeserializer,
    value::{Error as ValueError, StrDeserializer},
};

/// The beginning of the error for a number that is malformed or out of range.
pub(crate) const WHOLE_NUMBER: &str = "must be a whole number";

/// A single JSON value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scalar<'a> {
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(&'a str),
}

/// Returns whether a kind is written as a single value. That is true of all kinds except messages,
/// and of the well-known messages that are texts or numbers in JSON.
pub(crate) fn is_scalar(kind: &Kind) -> bool {
    match kind {
        Kind::Message(message) => is_text(message) || wrapped(message).is_some(),
        _ => true,
    }
}

fn is_text(message: &MessageDescriptor) -> bool {
    matches!(
        message.full_name(),
        "google.protobuf.Timestamp" | "google.protobuf.Duration" | "google.protobuf.FieldMask"
    )
}

/// Returns the kind inside a wrapper such as `google.protobuf.Int64Value`.
fn wrapped(message: &MessageDescriptor) -> Option<Kind> {
    let name = message.full_name().strip_prefix("google.protobuf.")?.strip_suffix("Value")?;
    let known =
        ["Float", "Double", "Int32", "Int64", "UInt32", "UInt64", "Bool", "String", "Bytes"];
    known
        .contains(&name)
        .then(|| message.get_field_by_name("value"))
        .flatten()
        .map(|field| field.kind())
}

/// Converts a value from JSON, or returns what is expected.
pub(crate) fn from_json(kind: &Kind, scalar: Scalar<'_>) -> Result<Value, String> {
    match kind {
        Kind::Bool => match scalar {
            Scalar::Bool(value) => Ok(Value::Bool(value)),
            _ => Err("must be true or false".into()),
        },
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => integer(scalar).map(Value::I32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => integer(scalar).map(Value::I64),
        Kind::Uint32 | Kind::Fixed32 => integer(scalar).map(Value::U32),
        Kind::Uint64 | Kind::Fixed64 => integer(scalar).map(Value::U64),
        Kind::Double => float(scalar).map(Value::F64),
        Kind::Float => float(scalar).and_then(narrow).map(Value::F32),
        Kind::Enum(names) => enumerated(names, scalar),
        Kind::String => text(scalar, "must be a string")
            .and_then(without_nul)
            .map(|text| Value::String(text.to_owned())),
        Kind::Bytes => text(scalar, "must be a string in base64").and_then(bytes),
        Kind::Message(message) => well_known(message, scalar),
    }
}

/// Converts a value from the text of a query, where an unencoded `+` has become a space. In the
/// offset of a time, the space is read as `+`.
pub(crate) fn from_query(kind: &Kind, text: &str) -> Result<Value, String> {
    let is_time = matches!(kind,
        Kind::Message(message) if message.full_name() == "google.protobuf.Timestamp");
    let is_offset = |text: &str| {
        let digits = text.bytes().filter(u8::is_ascii_digit).count();
        digits == 4 && (text.len() == 4 || text.len() == 5 && text.as_bytes()[2] == b':')
    };
    match text.rsplit_once(' ') {
        Some((time, offset)) if is_time && time.contains(':') && is_offset(offset) => {
            from_text(kind, &format!("{time}+{offset}"))
        }
        _ => from_text(kind, text),
    }
}

/// Converts a value from a text.
pub(crate) fn from_text(kind: &Kind, text: &str) -> Result<Value, String> {
    let scalar = match (kind, text) {
        // Python writes `True`.
        (Kind::Bool, text) if text.eq_ignore_ascii_case("true") => Scalar::Bool(true),
        (Kind::Bool, text) if text.eq_ignore_ascii_case("false") => Scalar::Bool(false),
        (Kind::Message(message), _) if wrapped(message).is_some() => {
            let inner = wrapped(message).ok_or("cannot be given here")?;
            return Ok(wrap(message, from_text(&inner, text)?));
        }
        (Kind::Enum(_), number) if number.parse::<i32>().is_ok() => {
            Scalar::Signed(number.parse().unwrap_or_default())
        }
        _ => Scalar::Text(text),
    };
    from_json(kind, scalar)
}

fn text<'a>(scalar: Scalar<'a>, expected: &str) -> Result<&'a str, String> {
    if let Scalar::Text(text) = scalar { Ok(text) } else { Err(expected.into()) }
}

/// PostgreSQL cannot store NUL in texts, and no name or key needs it.
pub(crate) fn without_nul(text: &str) -> Result<&str, String> {
    if text.contains('\0') { Err("must not contain a NUL character".into()) } else { Ok(text) }
}

fn integer<T: TryFrom<i128> + Bounded>(scalar: Scalar<'_>) -> Result<T, String> {
    let expected = || format!("{WHOLE_NUMBER} from {} to {}", T::MIN, T::MAX);
    let number = match scalar {
        Scalar::Signed(number) => Some(i128::from(number)),
        Scalar::Unsigned(number) => Some(i128::from(number)),
        // The cast saturates beyond 2^64, and the range check refuses the result.
        #[allow(clippy::cast_possible_truncation)]
        Scalar::Float(number) => (number.fract() == 0.0).then_some(number as i128),
        Scalar::Text(text) => text.parse().ok().filter(|_| !text.starts_with('+')),
        Scalar::Bool(_) => None,
    };
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(expected)
}

/// The range of an integer type, for the error.
trait Bounded {
    const MIN: i128;
    const MAX: i128;
}

macro_rules! bounded {
    ($($name:ty)*) => {$(impl Bounded for $name {
        const MIN: i128 = <$name>::MIN as i128;
        const MAX: i128 = <$name>::MAX as i128;
    })*};
}

bounded! { i32 i64 u32 u64 }

#[allow(clippy::cast_precision_loss)]
fn float(scalar: Scalar<'_>) -> Result<f64, String> {
    let number = match scalar {
        Scalar::Signed(number) => Some(number as f64),
        Scalar::Unsigned(number) => Some(number as f64),
        Scalar::Float(number) => Some(number),
        Scalar::Text("NaN") => Some(f64::NAN),
        Scalar::Text("Infinity") => Some(f64::INFINITY),
        Scalar::Text("-Infinity") => Some(f64::NEG_INFINITY),
        Scalar::Text(text) => text.parse().ok().filter(|number: &f64| number.is_finite()),
        Scalar::Bool(_) => None,
    };
    number.ok_or_else(|| "must be a number".into())
}

#[allow(clippy::cast_possible_truncation)]
fn narrow(number: f64) -> Result<f32, String> {
    let narrow = number as f32;
    if narrow.is_finite() || !number.is_finite() {
        Ok(narrow)
    } else {
        Err("must be a 32-bit number".into())
    }
}

/// Accepts an enum value by name or number, if it exists.
fn enumerated(names: &EnumDescriptor, scalar: Scalar<'_>) -> Result<Value, String> {
    let number = |number: Option<i32>| number.and_then(|number| names.get_value(number));
    let value = match scalar {
        Scalar::Text(text) => names.get_value_by_name(text),
        Scalar::Signed(given) => number(i32::try_from(given).ok()),
        Scalar::Unsigned(given) => number(i32::try_from(given).ok()),
        Scalar::Float(_) | Scalar::Bool(_) => None,
    };
    let expected = || {
        format!(
            "must be one of {}",
            names.values().map(|value| value.name().to_owned()).collect::<Vec<_>>().join(", ")
        )
    };
    value.map(|value| Value::EnumNumber(value.number())).ok_or_else(expected)
}

/// Accepts both alphabets, with or without padding, as the JSON of proto3 does, and line breaks, as
/// the command base64 writes them.
fn bytes(text: &str) -> Result<Value, String> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
    let engine = if text.contains(['-', '_']) { URL_SAFE } else { STANDARD };
    let text = if text.contains(['\r', '\n']) {
        Cow::Owned(text.replace(['\r', '\n'], ""))
    } else {
        Cow::Borrowed(text)
    };
    engine
        .decode(text.as_bytes())
        .map(|bytes| Value::Bytes(bytes.into()))
        .map_err(|_| "must be base64".into())
}

fn well_known(message: &MessageDescriptor, scalar: Scalar<'_>) -> Result<Value, String> {
    if let Some(inner) = wrapped(message) {
        return Ok(wrap(message, from_json(&inner, scalar)?));
    }
    let expected = match message.full_name() {
        "google.protobuf.Timestamp" => {
            "must be a time in RFC 3339 format, as in \"2030-01-31T12:00:00Z\""
        }
        "google.protobuf.Duration" => "must be a duration in seconds, as in \"1.5s\"",
        "google.protobuf.FieldMask" => {
            return text(scalar, "must be a string of field names")
                .and_then(|text| mask(message, text));
        }
        _ => return Err("must be an object".into()),
    };
    // The letters of a time may be in lower case (RFC 3339, section 5.6), which the library
    // refuses.
    let given = match text(scalar, expected)? {
        time if message.full_name() == "google.protobuf.Timestamp" => {
            Cow::Owned(time.to_ascii_uppercase())
        }
        other => Cow::Borrowed(other),
    };
    let deserializer: StrDeserializer<'_, ValueError> = given.as_ref().into_deserializer();
    let parsed = DynamicMessage::deserialize(message.clone(), deserializer);
    parsed.map(Value::Message).map_err(|_| expected.to_owned())
}

fn wrap(message: &MessageDescriptor, value: Value) -> Value {
    let mut wrapper = DynamicMessage::new(message.clone());
    wrapper.set_field_by_name("value", value);
    Value::Message(wrapper)
}

/// Accepts paths in either spelling, separated by commas. The role checks whether the fields exist.
fn mask(message: &MessageDescriptor, text: &str) -> Result<Value, String> {
    without_nul(text)?;
    let given = || text.split(',').map(str::trim).filter(|path| !path.is_empty());
    let most = message.get_field_by_name("paths").map_or(0, |paths| bounds::max_items(&paths));
    if given().count() > most as usize {
        return Err(bounds::too_many(most));
    }
    let mut mask = DynamicMessage::new(message.clone());
    mask.set_field_by_name(
        "paths",
        Value::List(given().map(|path| Value::String(snake_case(path))).collect()),
    );
    Ok(Value::Message(mask))
}

fn snake_case(text: &str) -> String {
    let mut snake = String::with_capacity(text.len() + 4);
    for character in text.chars() {
        if character.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use outrider_proto::DESCRIPTORS;

    use super::*;

    fn well_known_kind(name: &str) -> Kind {
        Kind::Message(DESCRIPTORS.get_message_by_name(&format!("google.protobuf.{name}")).unwrap())
    }

    #[test]
    fn integers_are_whole_and_in_range() {
        assert_eq!(from_json(&Kind::Int32, Scalar::Float(3.0)), Ok(Value::I32(3)));
        assert_eq!(
            from_json(&Kind::Uint64, Scalar::Text("18446744073709551615")),
            Ok(Value::U64(u64::MAX))
        );
        assert_eq!(from_json(&Kind::Int64, Scalar::Signed(-1)), Ok(Value::I64(-1)));
        let bad = [
            Scalar::Float(1.5),
            Scalar::Float(1e300),
            Scalar::Float(f64::NAN),
            Scalar::Text("+1"),
            Scalar::Text("1 "),
            Scalar::Bool(true),
        ];
        for bad in bad {
            assert!(from_json(&Kind::Int32, bad).is_err(), "{bad:?}");
        }
        assert!(from_json(&Kind::Uint64, Scalar::Float(18_446_744_073_709_551_616.0)).is_err());
        let error = from_json(&Kind::Uint32, Scalar::Signed(-1)).unwrap_err();
        assert_eq!(error, "must be a whole number from 0 to 4294967295");
    }

    #[test]
    fn texts_give_all_kinds() {
        assert_eq!(from_text(&Kind::Bool, "true"), Ok(Value::Bool(true)));
        assert!(from_text(&Kind::Bool, "1").is_err());
        assert_eq!(from_text(&Kind::Bytes, "_-8="), Ok(Value::Bytes(vec![0xff, 0xef].into())));
        assert!(from_text(&Kind::Bytes, "?").is_err());
        assert!(from_text(&Kind::String, "a\0").is_err());
        assert!(from_text(&Kind::Float, "1e39").is_err());
        for (name, good, bad) in [
            ("Timestamp", "2024-02-29T12:00:00.5+02:00", "2023-02-29T12:00:00Z"),
            ("Duration", "-1.5s", "1.5"),
        ] {
            assert!(from_text(&well_known_kind(name), good).is_ok(), "{name}");
            assert!(from_text(&well_known_kind(name), bad).is_err(), "{name}");
        }
    }

    #[test]
    fn unambiguous_texts_are_accepted() {
        let time = well_known_kind("Timestamp");
        let meant = from_text(&time, "2024-02-29T12:00:00+02:00").unwrap();
        for text in [
            "2024-02-29T12:00:00 02:00",
            "2024-02-29t12:00:00+02:00",
            "2024-02-29T10:00:00Z",
            "2024-02-29T10:00:00z",
        ] {
            assert_eq!(from_query(&time, text).as_ref(), Ok(&meant), "{text}");
        }
        for text in [
            "2024-02-29 12:00",
            "12:00",
            "2024-02-29T12:00:00 2:00",
            "2024-02-29T12:00:00 é:00",
            " ",
        ] {
            assert!(from_query(&time, text).is_err(), "{text}");
        }
        assert_eq!(from_query(&Kind::String, "a: 02:00"), Ok(Value::String("a: 02:00".into())));
        for text in ["true", "True", "TRUE"] {
            assert_eq!(from_text(&Kind::Bool, text), Ok(Value::Bool(true)));
        }
        for text in ["1", "", "yes"] {
            assert!(from_text(&Kind::Bool, text).is_err(), "{text}");
        }
        for text in ["aGVsbG8=", "aGVs\nbG8=\n", "aGVs\r\nbG8"] {
            assert_eq!(from_text(&Kind::Bytes, text), Ok(Value::Bytes("hello".into())), "{text:?}");
        }
        assert!(from_text(&Kind::Bytes, "aGVs bG8=").is_err());
    }

    #[test]
    fn masks_come_in_both_spellings() {
        let Ok(Value::Message(mask)) =
            from_text(&well_known_kind("FieldMask"), "max_in_flight,ownerId,a.bC")
        else {
            panic!("no mask")
        };
        let paths = mask.get_field_by_name("paths").unwrap();
        let paths =
            paths.as_list().unwrap().iter().map(|path| path.as_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(paths, ["max_in_flight", "owner_id", "a.b_c"]);
    }

    #[test]
    fn enums_are_closed() {
        let kind = Kind::Enum(
            DESCRIPTORS.get_enum_by_name("outrider.dispatch.v1.DeliveryStatus").unwrap(),
        );
        assert_eq!(from_text(&kind, "DELIVERY_STATUS_FAILED"), Ok(Value::EnumNumber(3)));
        assert_eq!(from_text(&kind, "3"), Ok(Value::EnumNumber(3)));
        assert!(from_text(&kind, "99").unwrap_err().contains("DELIVERY_STATUS_PENDING"));
        assert!(from_text(&kind, "").is_err());
    }
}
