//! Describes the library's errors: what must hold according to the schema, without values of the
//! payload.

use std::fmt::Display;

use jsonschema::{
    ValidationError,
    error::{TypeKind, ValidationErrorKind as Kind},
};
use outrider_model::text::quoted;

use crate::fault::{Fault, Violation};

/// Maximum length of a description, in characters. Schemas may contain long constants.
const CHARACTERS: usize = 200;
/// Maximum number of property names in a description.
const NAMES: usize = 3;
/// Maximum length of a property name, in characters.
const NAME_CHARACTERS: usize = 64;
/// Maximum length of a pointer, in characters.
const POINTER_CHARACTERS: usize = 512;

/// Describes a violation of the schema by a payload.
pub fn violation(error: &ValidationError<'_>) -> Violation {
    Violation {
        pointer: shortened(error.instance_path().as_str(), POINTER_CHARACTERS),
        description: describe(error.kind()),
        keyword: shortened(error.schema_path().as_str(), POINTER_CHARACTERS),
    }
}

/// Describes a fault of a schema: a violation of its meta-schema, or a dangling reference.
pub fn fault(error: &ValidationError<'_>) -> Fault {
    let description = match error.kind() {
        Kind::Referencing(why) => shortened(&why.to_string(), CHARACTERS),
        Kind::Format { format } if format == "regex" => {
            "must be a regular expression without look-around and back-references, of at most 64 \
                KiB when compiled"
                .to_owned()
        }
        Kind::Custom { message, .. } => shortened(message, CHARACTERS),
        kind => describe(kind),
    };
    Fault::at(shortened(error.instance_path().as_str(), POINTER_CHARACTERS), description)
}

fn describe(kind: &Kind) -> String {
    let text = match kind {
        Kind::AdditionalItems { limit } => format!("must have at most {limit} items"),
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            format!("must not have the properties {}", names(unexpected))
        }
        Kind::AnyOf { .. } => "must fit at least one of the schemas of anyOf".to_owned(),
        Kind::OneOfNotValid { .. } => {
            "must fit one of the schemas of oneOf, and fits none".to_owned()
        }
        Kind::OneOfMultipleValid { .. } => {
            "must fit one of the schemas of oneOf, and fits several".to_owned()
        }
        Kind::Constant { expected_value } => format!("must be {expected_value}"),
        Kind::Contains => "must have the items that contains asks for".to_owned(),
        Kind::ContentEncoding { content_encoding } => {
            format!("must be encoded in {content_encoding}")
        }
        Kind::ContentMediaType { content_media_type } => format!("must be {content_media_type}"),
        Kind::FromUtf8 { .. } => "must be UTF-8 when decoded".to_owned(),
        Kind::Enum { options } => format!("must be one of {options}"),
        Kind::ExclusiveMaximum { limit } => format!("must be less than {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("must be greater than {limit}"),
        Kind::Maximum { limit } => format!("must be at most {limit}"),
        Kind::Minimum { limit } => format!("must be at least {limit}"),
        Kind::MaxItems { limit } => format!("must have at most {limit} items"),
        Kind::MinItems { limit } => format!("must have at least {limit} items"),
        Kind::MaxLength { limit } => format!("must have at most {limit} characters"),
        Kind::MinLength { limit } => format!("must have at least {limit} characters"),
        Kind::MaxProperties { limit } => format!("must have at most {limit} properties"),
        Kind::MinProperties { limit } => format!("must have at least {limit} properties"),
        Kind::MultipleOf { multiple_of } => format!("must be a multiple of {multiple_of}"),
        Kind::FalseSchema => "must not be there".to_owned(),
        Kind::Format { format } => format!("must be of the format {format}"),
        Kind::Not { .. } => "must not fit the schema of not".to_owned(),
        Kind::Pattern { pattern } => format!("must match the pattern {pattern}"),
        Kind::PropertyNames { error } => {
            format!("has a property whose name {}", describe(error.kind()))
        }
        Kind::Required { property } => format!("must have the property {property}"),
        Kind::Type { kind: TypeKind::Single(one) } => format!("must be of the type {one}"),
        Kind::Type { kind: TypeKind::Multiple(several) } => {
            format!("must be of the type {}", joined(several.iter()))
        }
        Kind::UnevaluatedItems { .. } => "must not have further items".to_owned(),
        Kind::UniqueItems => "must have no two equal items".to_owned(),
        Kind::BacktrackLimitExceeded { .. } | Kind::RegexEngineFailure { .. } => {
            "has a text that no pattern can be matched with".to_owned()
        }
        Kind::Custom { keyword, .. } => format!("must be as {keyword} says"),
        Kind::Referencing(_) => "cannot be validated".to_owned(),
    };
    shortened(&text, CHARACTERS)
}

fn joined(words: impl Iterator<Item = impl Display>) -> String {
    words.map(|word| word.to_string()).collect::<Vec<_>>().join(" or ")
}

/// Quotes and shortens some names. Names of properties are shown, as they are in pointers. Values
/// are not.
fn names(unexpected: &[String]) -> String {
    let told = unexpected
        .iter()
        .take(NAMES)
        .map(|name| quoted(&shortened(name, NAME_CHARACTERS)).to_string());
    let mut text = told.collect::<Vec<_>>().join(", ");
    if unexpected.len() > NAMES {
        text += &format!(" and {} more", unexpected.len() - NAMES);
    }
    text
}

fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}
