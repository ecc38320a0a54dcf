//! Checks that a JSON payload is valid JSON.

use outrider_model::{json::is_shallow, limits::JSON_DEPTH};
use serde::de::IgnoredAny;

/// Why a payload is not acceptable JSON.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotJson {
    #[error("must be UTF-8, as JSON is")]
    NotUtf8,
    #[error("must be JSON, as its content type says: {0}")]
    Syntax(String),
    #[error("must not be nested deeper than {JSON_DEPTH}")]
    TooDeep,
}

/// Whether a media type means JSON: `application/json`, or any with the suffix `+json` (RFC 6839).
pub fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || essence.to_ascii_lowercase().ends_with("+json")
}

/// Checks syntax (RFC 8259) and nesting without building a value, so that memory does not grow with
/// the input.
pub fn check(payload: &[u8]) -> Result<(), NotJson> {
    let text = std::str::from_utf8(payload).map_err(|_| NotJson::NotUtf8)?;
    if !is_shallow(payload) {
        return Err(NotJson::TooDeep);
    }
    serde_json::from_str::<IgnoredAny>(text)
        .map(drop)
        .map_err(|error| NotJson::Syntax(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_any_json_and_nothing_else() {
        for good in ["null", " {\"a\":[1e400,\"\\u0000\",\"[[\"],\"a\":1} ", "\"x\"", "-0.0"] {
            assert_eq!(check(good.as_bytes()), Ok(()), "{good}");
        }
        for bad in ["", "{", "{'a':1}", "[1,]", "NaN", "1 2", "\"\u{1}\""] {
            assert!(matches!(check(bad.as_bytes()), Err(NotJson::Syntax(_))), "{bad}");
        }
        assert_eq!(check(b"\"\xff\""), Err(NotJson::NotUtf8));
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(check(nested(JSON_DEPTH).as_bytes()), Ok(()));
        assert_eq!(check(nested(JSON_DEPTH + 1).as_bytes()), Err(NotJson::TooDeep));
    }

    #[test]
    fn media_types() {
        for json in
            ["application/json", "Application/JSON; charset=utf-8", "application/cloudevents+json"]
        {
            assert!(is_json(json), "{json}");
        }
        for other in ["text/plain", "application/jsonl", "application/xml"] {
            assert!(!is_json(other), "{other}");
        }
    }
}
