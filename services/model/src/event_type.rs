//! Event types and the patterns by which subscriptions name them.

use std::{fmt, str::FromStr};

use crate::{EventTypeId, Noun, ProjectId, Spec, limits};

/// The type of an event: parts of letters, digits, `_` and `-`, joined by dots, as Standard
/// Webhooks recommends, or by `:` or `/`, as in other systems.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventType(String);

/// Why a text is not an event type or pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("must not be empty")]
    Empty,
    #[error("must be at most {} bytes", limits::EVENT_TYPE_BYTES)]
    TooLong,
    #[error("must be parts of letters, digits, '_' and '-', joined by single '.', ':' or '/'")]
    Characters,
    #[error("must be an event type, a prefix and \".*\", or \"*\"")]
    Pattern,
    #[error(
        "must have \"*\" alone or as its last part, as in \"invoice.*\": what comes after or \
            beside a \"*\" cannot be matched"
    )]
    Star,
}

impl EventType {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for EventType {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        if text.is_empty() {
            return Err(Malformed::Empty);
        }
        if text.len() > limits::EVENT_TYPE_BYTES {
            return Err(Malformed::TooLong);
        }
        let part = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        };
        if text.split(['.', ':', '/']).all(part) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Malformed::Characters)
        }
    }
}

/// An entry of a project's catalog of event types.
pub type EventTypeDefinition = Noun<EventTypeSpec>;

/// The project and name of an event type, which never change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventTypeFixed {
    pub project: ProjectId,
    /// The type under which events are published. Each has one entry in its project.
    pub event_type: EventType,
}

/// The fields of an event type that callers set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventTypeSpec {
    /// For people.
    pub description: String,
    /// The text of the JSON Schema for payloads.
    pub schema: Option<String>,
    pub deprecated: bool,
}

impl Spec for EventTypeSpec {
    type Id = EventTypeId;
    type Fixed = EventTypeFixed;
}

/// The event types that a subscription selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventTypePattern {
    /// Every type: `*`.
    All,
    /// Every type that begins with this type and a dot: `prefix.*`.
    Under(EventType),
    /// This type only.
    Exactly(EventType),
}

impl EventTypePattern {
    /// Whether the pattern matches this type.
    #[must_use]
    pub fn matches(&self, event_type: &str) -> bool {
        match self {
            Self::All => true,
            Self::Exactly(wanted) => wanted.as_str() == event_type,
            Self::Under(prefix) => {
                event_type.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.starts_with('.'))
            }
        }
    }
}

impl FromStr for EventTypePattern {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        if text == "*" {
            return Ok(Self::All);
        }
        let parsed = match text.strip_suffix(".*") {
            Some(prefix) => prefix.parse().map(Self::Under),
            None => text.parse().map(Self::Exactly),
        };
        parsed.map_err(|error| match error {
            Malformed::Characters | Malformed::Empty if text.contains('*') => Malformed::Star,
            Malformed::Characters => Malformed::Pattern,
            other => other,
        })
    }
}

impl fmt::Display for EventTypePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Under(prefix) => write!(f, "{prefix}.*"),
            Self::Exactly(event_type) => event_type.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_parts_only() {
        let matches = |pattern: &str, event_type: &str| {
            pattern.parse::<EventTypePattern>().unwrap().matches(event_type)
        };
        assert!(matches("*", "a"));
        assert!(matches("invoice.*", "invoice.paid") && matches("invoice.*", "invoice.line.added"));
        assert!(!matches("invoice.*", "invoice") && !matches("invoice.*", "invoices.paid"));
        assert!(
            matches("invoice.paid", "invoice.paid")
                && !matches("invoice.paid", "invoice.paid.late")
        );
    }

    #[test]
    fn names_are_parts_joined_by_single_separators() {
        for text in [
            "a",
            "invoice.paid",
            "order:created",
            "billing/invoice.paid",
            "A.b-c_D:e/0",
            &"a".repeat(256),
        ] {
            assert_eq!(text.parse::<EventType>().unwrap().as_str(), text);
            assert_eq!(text.parse::<EventTypePattern>().unwrap().to_string(), text);
        }
        for text in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "a/",
            "/a",
            "a//b",
            "a/./b",
            "a:.b",
            "a:",
            "a b",
            "a%2Fb",
            "\0",
            "é",
            &"a".repeat(257),
        ] {
            assert!(text.parse::<EventType>().is_err(), "{text:?}");
            assert!(text.parse::<EventTypePattern>().is_err(), "{text:?}");
        }
        assert_eq!("a*".parse::<EventType>(), Err(Malformed::Characters));
    }

    #[test]
    fn patterns_have_a_star_at_the_end_or_the_reason_says_so() {
        for text in ["*", "a.*", "a-b.c_D.*", "billing/invoice.*", "a:b.*"] {
            assert_eq!(text.parse::<EventTypePattern>().unwrap().to_string(), text);
        }
        for text in ["**", "a.*.b", "*.*", ".*", "*.created", "a*", "a/*", "a:*"] {
            assert_eq!(text.parse::<EventTypePattern>(), Err(Malformed::Star), "{text:?}");
        }
        assert_eq!("a b".parse::<EventTypePattern>(), Err(Malformed::Pattern));
    }
}
