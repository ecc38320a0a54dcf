//! The syntax of the parts of an HTTP/1 head.

use crate::fault::Fault;

/// Maximum number of bytes of a line up to the end of the status code.
const STATUS_BYTES: usize = 32;

/// Returns a line without its end, which is a line feed with or without a carriage return.
pub(super) fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Returns the code in a status line, or `None` while it has not arrived. Ignores the rest of the
/// line.
pub(super) fn status(line: &[u8]) -> Result<Option<u16>, Fault> {
    const VERSION: &[u8] = b"HTTP/1.";
    let known = line.len().min(VERSION.len());
    if line[..known] != VERSION[..known] {
        return Err(Fault::NotHttp);
    }
    let rest = &line[known..line.len().min(STATUS_BYTES)];
    let Some((minor, rest)) = rest.split_first() else { return Ok(None) };
    if !minor.is_ascii_digit() || !rest.first().is_none_or(is_blank) {
        return Err(Fault::NotHttp);
    }
    let rest = &rest[rest.iter().take_while(|byte| is_blank(byte)).count()..];
    let (digits, rest) = rest.split_at(rest.len().min(3));
    if !digits.iter().all(u8::is_ascii_digit) || digits.first() == Some(&b'0') {
        return Err(Fault::NotHttp);
    }
    match (digits.len(), rest.first()) {
        (3, None) => {}
        (3, Some(byte)) if is_blank(byte) || *byte == b'\r' => {}
        (_, None) if line.len() < STATUS_BYTES => return Ok(None),
        _ => return Err(Fault::NotHttp),
    }
    Ok(Some(digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'))))
}

pub(super) fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Whether a byte is permitted in a value or a reason.
pub(super) fn is_text(byte: &u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// Whether a text is the name of a header field: a token of RFC 9110.
pub(super) fn is_name(name: &[u8]) -> bool {
    const TOKEN: [bool; 256] = {
        let mut token = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            token[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let marks = b"!#$%&'*+-.^_`|~";
        let mut mark = 0;
        while mark < marks.len() {
            token[marks[mark] as usize] = true;
            mark += 1;
        }
        token
    };
    !name.is_empty() && name.iter().all(|byte| TOKEN[usize::from(*byte)])
}

/// Parses a Content-Length that consists of digits alone.
pub(super) fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // The HTTP library does not accept the largest number as a length.
    value.iter().try_fold(0, |length: u64, digit| {
        let length = length.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        i64::try_from(length).is_ok().then_some(length)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_digits() {
        assert_eq!(
            (length(b"0"), length(b"0012"), length(b"9223372036854775807")),
            (Some(0), Some(12), Some(u64::MAX / 2))
        );
        for none in
            ["", "-1", "+1", "1 1", "0x1", "9223372036854775808", "99999999999999999999999999"]
        {
            assert_eq!(length(none.as_bytes()), None, "{none}");
        }
    }
}
