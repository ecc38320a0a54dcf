//! Strict percent-decoding. Malformed text is refused, never guessed.

use std::borrow::Cow;

/// Decodes a text. Returns `None` if it is malformed or not UTF-8.
pub(crate) fn decode(text: &str) -> Option<Cow<'_, str>> {
    decode_keeping(text, None, false)
}

/// Decodes a text of a query, where `+` is a space.
pub(crate) fn decode_query(text: &str) -> Option<Cow<'_, str>> {
    decode_keeping(text, None, true)
}

/// Decodes a text, except that an encoded `/` stays encoded. In a value of several segments, it
/// could not be distinguished from a separator.
pub(crate) fn decode_but_slashes(text: &str) -> Option<Cow<'_, str>> {
    decode_keeping(text, Some(b'/'), false)
}

fn decode_keeping(text: &str, keep: Option<u8>, plus: bool) -> Option<Cow<'_, str>> {
    if !(text.contains('%') || plus && text.contains('+')) {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let (high, low) = (bytes.next()?, bytes.next()?);
                let byte = digit(high)? << 4 | digit(low)?;
                if keep == Some(byte) {
                    decoded.extend([b'%', high, low])
                } else {
                    decoded.push(byte)
                }
            }
            b'+' if plus => decoded.push(b' '),
            other => decoded.push(other),
        }
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_what_is_well_formed_only() {
        assert_eq!(decode("a%20b%2Fc+d").as_deref(), Some("a b/c+d"));
        assert_eq!(decode_query("a%2Bb+c").as_deref(), Some("a+b c"));
        assert_eq!(decode_but_slashes("a%2fb%41").as_deref(), Some("a%2fbA"));
        assert_eq!(decode("%E2%82%AC").as_deref(), Some("€"));
        for malformed in ["%", "%2", "%zz", "%+1", "%ff", "%E2%82"] {
            assert_eq!(decode(malformed), None, "{malformed}");
        }
    }
}
