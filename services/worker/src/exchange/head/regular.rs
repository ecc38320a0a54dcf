//! Heads that the HTTP library can read unchanged.

use super::syntax::{is_blank, is_name, is_text, length};

/// Maximum number of header fields of a head that is passed on unchanged. The HTTP library accepts
/// no more.
pub(super) const FIELDS: usize = 100;
/// Maximum length of a field name in such a head. The HTTP library has a limit too.
const NAME_BYTES: usize = 256;

/// Whether the HTTP library accepts this head, and the end of the response is unambiguous.
pub(super) fn is_regular(head: &[u8]) -> bool {
    let mut lines = head.split_inclusive(|byte| *byte == b'\n');
    let first = lines.next().and_then(|line| line.strip_suffix(b"\r\n"));
    let Some(reason) =
        first.and_then(|line| line.strip_prefix(b"HTTP/1.1 ")).and_then(|code| code.get(3..))
    else {
        return false;
    };
    // A code that begins with a blank is preceded by another blank.
    if is_blank(&head[9])
        || reason.first().is_some_and(|byte| *byte != b' ')
        || !reason.iter().all(is_text)
    {
        return false;
    }
    let (mut fields, mut frames) = (0, 0);
    for line in lines {
        let Some(line) = line.strip_suffix(b"\r\n") else { return false };
        if line.is_empty() {
            break;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return false };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if colon > NAME_BYTES || !is_name(name) || !line[colon + 1..].iter().all(is_text) {
            return false;
        }
        fields += 1;
        if name.eq_ignore_ascii_case(b"content-length") {
            frames += 1;
            if length(value).is_none() {
                return false;
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            frames += 1;
            if !value.eq_ignore_ascii_case(b"chunked") {
                return false;
            }
        }
    }
    fields <= FIELDS && frames <= 1
}
