//! Checks JSON texts before they are parsed.

use memchr::memchr2;

use crate::limits::JSON_DEPTH;

/// Whether brackets outside strings nest no deeper than the limit. If the text is not valid JSON,
/// this only means that a parser goes no deeper before it fails.
#[must_use]
pub fn is_shallow(text: &[u8]) -> bool {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'"' => at += rest_of_string(&text[at..]),
            b'[' | b'{' => {
                depth += 1;
                if depth > JSON_DEPTH {
                    return false;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

/// Returns the number of bytes of a string after its first quote. Large payloads are mostly
/// strings.
fn rest_of_string(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(found) = memchr2(b'"', b'\\', &text[at..]) {
        at += found + 1;
        if text[at - 1] == b'"' {
            return at;
        }
        // An escaped character does not end the string.
        at = (at + 1).min(text.len());
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nested(levels: usize) -> String {
        format!("{}{}", "[".repeat(levels), "]".repeat(levels))
    }

    #[test]
    fn nesting_is_bounded_and_brackets_in_strings_do_not_count() {
        for shallow in [
            nested(JSON_DEPTH),
            format!("[{}]", vec!["[]"; 1_000].join(",")),
            format!("\"\\\"{}\"", "[".repeat(500)),
            format!("{{\"{}\":1}}", "{".repeat(500)),
            "\"\\".to_owned(),
        ] {
            assert!(is_shallow(shallow.as_bytes()), "{shallow}");
        }
        for deep in
            [nested(JSON_DEPTH + 1), nested(1_000_000), format!("\"\\\\\"{}", "[".repeat(500))]
        {
            assert!(!is_shallow(deep.as_bytes()), "{}", deep.len());
        }
    }

    /// Byte by byte.
    fn deepest(text: &[u8]) -> usize {
        let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
        for byte in text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_string => escaped = true,
                b'"' => in_string = !in_string,
                b'[' | b'{' if !in_string => {
                    depth += 1;
                    deepest = deepest.max(depth);
                }
                b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        deepest
    }

    proptest! {
        #[test]
        fn strings_end_where_they_end(text in "([\\[{}\\]\"\\\\x]|\\[{60}|\\\\\"){0,60}") {
            prop_assert_eq!(is_shallow(text.as_bytes()), deepest(text.as_bytes()) <= JSON_DEPTH);
        }
    }
}
