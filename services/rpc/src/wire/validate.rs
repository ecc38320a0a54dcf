//! Rules of fields that several roles share. A rule of a text returns its fault. A rule of a map
//! adds violations, each under the path of its entry.

use std::collections::{BTreeMap, HashMap};

use outrider_model::{error::Violations, header, limits, text::quoted};

/// The fault of a text, for the description of a violation.
pub type Fault = String;

/// Checks a display name: 1 to 128 characters, no control characters, not only white space.
pub fn name(text: &str) -> Result<(), Fault> {
    if text.trim().is_empty() {
        return Err("is required".to_owned());
    }
    optional_name(text)
}

/// Checks a name that may be empty: at most 128 characters, no control characters.
pub fn optional_name(text: &str) -> Result<(), Fault> {
    at_most_characters(text, limits::NAME_CHARACTERS)?;
    if text.chars().any(char::is_control) {
        Err("must not contain control characters".to_owned())
    } else {
        Ok(())
    }
}

/// Checks a description: at most 1,024 characters, and no control characters other than line feeds
/// and tabs.
pub fn description(text: &str) -> Result<(), Fault> {
    at_most_characters(text, limits::DESCRIPTION_CHARACTERS)?;
    prose(text)
}

/// Checks a key, such as an idempotency key or an owner's id: 1 to `most` bytes of visible ASCII.
pub fn key(text: &str, most: usize) -> Result<(), Fault> {
    if (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(())
    } else {
        Err(format!("must be 1 to {most} bytes of visible ASCII"))
    }
}

/// Checks a media type, `type/subtype` with optional parameters: at most 255 bytes.
pub fn content_type(text: &str) -> Result<(), Fault> {
    if text.len() > limits::CONTENT_TYPE_BYTES {
        return Err(format!("must be at most {} bytes", limits::CONTENT_TYPE_BYTES));
    }
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    let is_media_type = essence
        .trim_end_matches([' ', '\t'])
        .split_once('/')
        .is_some_and(|(kind, subtype)| header::is_token(kind) && header::is_token(subtype));
    if is_media_type && parameters.bytes().all(header::is_value_byte) {
        Ok(())
    } else {
        Err("must be a media type such as application/json".to_owned())
    }
}

/// Checks metadata: at most 32 entries, and at most 8 KiB of names and values together. Names must
/// not be empty or contain control characters.
pub fn string_map(violations: &mut Violations, field: &str, map: &HashMap<String, String>) {
    if !within_bounds(violations, field, map) {
        return;
    }
    for (name, value) in sorted(map) {
        let named = !name.is_empty() && !name.chars().any(char::is_control);
        violations.require(
            named,
            entry(field, name),
            "must have a name without control characters",
        );
        violations.check(entry(field, name), prose(value));
    }
}

/// Checks headers for receivers, and returns them with lower-case names: at most 32, at most 8 KiB
/// of names and values together, and each must be permitted ([`header::check`]).
pub fn headers(
    violations: &mut Violations,
    field: &str,
    map: &HashMap<String, String>,
) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    if !within_bounds(violations, field, map) {
        return headers;
    }
    for (name, value) in sorted(map) {
        let lower = name.to_ascii_lowercase();
        if let Err(why) = header::check(&lower, value) {
            violations.add(entry(field, name), why.to_string());
        } else if headers.insert(lower, value.to_owned()).is_some() {
            violations.add(entry(field, name), "occurs twice: names are not case-sensitive");
        }
    }
    headers
}

/// Checks the bounds of a map as a whole. Entries are checked one by one only if the map is within
/// them, so that errors stay small too.
fn within_bounds(violations: &mut Violations, field: &str, map: &HashMap<String, String>) -> bool {
    let bytes: usize = map.iter().map(|(name, value)| name.len() + value.len()).sum();
    let (few, small) = (map.len() <= limits::MAP_ENTRIES, bytes <= limits::MAP_BYTES);
    violations.require(few, field, format!("must have at most {} entries", limits::MAP_ENTRIES));
    violations.require(
        small,
        field,
        format!("must have names and values of at most {} bytes together", limits::MAP_BYTES),
    );
    few && small
}

/// Returns the path of a map entry for violations.
pub fn entry(field: &str, name: &str) -> String {
    format!("{field}[{}]", quoted(name))
}

/// Sorts the entries by name, so that the same request gets the same answer.
fn sorted(map: &HashMap<String, String>) -> BTreeMap<&str, &str> {
    map.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn at_most_characters(text: &str, most: usize) -> Result<(), Fault> {
    if text.chars().nth(most).is_some() {
        Err(format!("must be at most {most} characters"))
    } else {
        Ok(())
    }
}

fn prose(text: &str) -> Result<(), Fault> {
    let refused =
        |character: char| character.is_control() && character != '\n' && character != '\t';
    if text.chars().any(refused) {
        Err("must not contain control characters other than line feeds and tabs".to_owned())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &str)]) -> HashMap<String, String> {
        entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn faults(check: impl FnOnce(&mut Violations)) -> Vec<String> {
        let mut violations = Violations::new();
        check(&mut violations);
        violations
            .finish()
            .err()
            .map(|error| error.violations.into_iter().map(|v| v.field).collect())
            .unwrap_or_default()
    }

    fn header_faults(entries: &[(&str, &str)]) -> Vec<String> {
        faults(|violations| {
            headers(violations, "event.headers", &map(entries));
        })
    }

    #[test]
    fn names_have_1_to_128_characters_without_control_characters() {
        assert!(
            name("Zoë's shop").is_ok()
                && name(&"é".repeat(128)).is_ok()
                && optional_name("").is_ok()
        );
        for text in ["", " ", "a\nb", "a\0", "\u{85}a", &"a".repeat(129)] {
            assert!(name(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn descriptions_may_have_lines() {
        assert!(
            description("").is_ok()
                && description("a\n\tb").is_ok()
                && description(&"é".repeat(1_024)).is_ok()
        );
        for text in ["a\0", "a\rb", "\u{1b}[31m", &"a".repeat(1_025)] {
            assert!(description(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn keys_are_visible_ascii_within_their_limit() {
        assert!(key("a~!", 3).is_ok());
        for text in ["", "abcd", "a b", "é", "a\n"] {
            assert!(key(text, 3).is_err(), "{text:?}");
        }
    }

    #[test]
    fn content_types_are_media_types() {
        for text in [
            "application/json",
            "text/plain; charset=utf-8",
            "application/vnd.a+json;q=\"a;b\"",
            "text/plain ;a=b",
        ] {
            assert!(content_type(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "json",
            "a/",
            "/b",
            "a/b/c",
            "a b/c",
            "a/b;\r\nx: y",
            "a/b;é",
            &format!("a/{}", "b".repeat(254)),
        ] {
            assert!(content_type(text).is_err(), "{text}");
        }
    }

    #[test]
    fn headers_are_lower_cased_and_kept() {
        let mut violations = Violations::new();
        let kept = headers(
            &mut violations,
            "h",
            &map(&[("X-A", "1 \t2"), ("User-Agent", ""), ("Authorization", "Bearer x")]),
        );
        assert!(violations.finish().is_ok());
        let names: Vec<&str> = kept.keys().map(String::as_str).collect();
        assert_eq!(names, ["authorization", "user-agent", "x-a"]);
        assert_eq!(kept["x-a"], "1 \t2");
    }

    #[test]
    fn every_wrong_header_is_named() {
        assert_eq!(
            header_faults(&[("x-a", "a\r\nb"), ("x-b", "\0"), ("x-c", "é"), ("x-d", "fine")]),
            [r#"event.headers["x-a"]"#, r#"event.headers["x-b"]"#, r#"event.headers["x-c"]"#]
        );
        for name in ["", "a b", "a:", "é", "a\r\n", "\""] {
            assert_eq!(header_faults(&[(name, "v")]), [format!("event.headers[{name:?}]")]);
        }
        assert_eq!(header_faults(&[("X-A", "1"), ("x-a", "2")]), [r#"event.headers["x-a"]"#]);
    }

    #[test]
    fn reserved_headers_are_refused_in_any_case() {
        for name in [
            "Host",
            "content-length",
            "Content-Type",
            "transfer-encoding",
            "connection",
            "keep-alive",
            "Upgrade",
            "TE",
            "trailer",
            "proxy-authorization",
            "expect",
            "Accept-Encoding",
            "Traceparent",
            "tracestate",
            "webhook-id",
            "Webhook-Signature",
            "outrider-delivery-id",
        ] {
            assert_eq!(header_faults(&[(name, "v")]).len(), 1, "{name}");
        }
    }

    #[test]
    fn maps_are_bounded_as_a_whole() {
        let many: HashMap<_, _> =
            (0..33).map(|number| (format!("n{number}"), "\0".to_owned())).collect();
        assert_eq!(faults(|violations| string_map(violations, "m", &many)), ["m"]);
        let full = map(&[("name", &"v".repeat(limits::MAP_BYTES - 4))]);
        assert!(faults(|violations| string_map(violations, "m", &full)).is_empty());
        let large = map(&[("name", &"v".repeat(limits::MAP_BYTES - 3))]);
        assert_eq!(faults(|violations| string_map(violations, "m", &large)), ["m"]);
        assert_eq!(header_faults(&[("x", &"v".repeat(limits::MAP_BYTES))]), ["event.headers"]);
    }

    #[test]
    fn metadata_has_names_and_no_control_characters() {
        let wrong = map(&[("", "v"), ("a\0", "v"), ("b", "\0"), ("c", "Zoë\n")]);
        assert_eq!(
            faults(|violations| string_map(violations, "m", &wrong)),
            [r#"m[""]"#, r#"m["a\u0000"]"#, r#"m["b"]"#]
        );
    }
}
