//! Interim answers (1xx, RFC 9110 section 15.2), in the bytes as they come.

use crate::wire::Fault;

/// Version, space and status code: "HTTP/1.1 200".
const STATUS_BYTES: usize = 12;

/// Reads along with the answers of one exchange until the head of the last one has come. Whether
/// they are well-formed is left to the HTTP library.
#[derive(Debug)]
pub(crate) struct Interim {
    /// Interim answers that may still come.
    answers: usize,
    /// Bytes that may still come before the head of the last answer ends.
    bytes: usize,
    /// Whether something came before the last answer.
    preceded: bool,
    place: Place,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// Before or in the first bytes of a status line.
    Status { line: [u8; STATUS_BYTES], length: usize },
    /// In the rest of a head; `line` when the line under way has a character.
    Rest { last: bool, line: bool },
    /// The head of the last answer has come, or is bounded by the HTTP library alone.
    Done,
}

const STATUS: Place = Place::Status { line: [0; STATUS_BYTES], length: 0 };

impl Interim {
    /// With at most `answers` of them, whose bytes and those of the last head are at most `bytes`.
    pub(crate) fn new(answers: usize, bytes: usize) -> Self {
        Self { answers, bytes, preceded: false, place: STATUS }
    }

    /// Reads the next bytes.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        for byte in bytes {
            let next = match self.place {
                Place::Done => return Ok(()),
                // Empty lines before a status line are skipped by the HTTP library.
                Place::Status { length: 0, .. } if matches!(byte, b'\r' | b'\n') => {
                    self.preceded = true;
                    STATUS
                }
                Place::Status { mut line, length } => {
                    line[length] = *byte;
                    if length + 1 < STATUS_BYTES { Place::Status { line, length: length + 1 } } else { self.begun(&line)? }
                }
                Place::Rest { last, line: false } if *byte == b'\n' => {
                    if last {
                        Place::Done
                    } else {
                        STATUS
                    }
                }
                Place::Rest { last, line } => Place::Rest { last, line: *byte != b'\n' && (line || *byte != b'\r') },
            };
            self.place = next;
            self.bytes = self.bytes.checked_sub(1).ok_or(Fault::Head)?;
        }
        Ok(())
    }

    /// An answer has begun, with this version and status.
    fn begun(&mut self, line: &[u8; STATUS_BYTES]) -> Result<Place, Fault> {
        match &line[STATUS_BYTES - 3..] {
            b"101" => Err(Fault::Switched),
            [b'1', ..] => {
                self.answers = self.answers.checked_sub(1).ok_or(Fault::Interim)?;
                self.preceded = true;
                Ok(Place::Rest { last: false, line: true })
            }
            _ if self.preceded => Ok(Place::Rest { last: true, line: true }),
            // An ordinary answer: the HTTP library bounds its head.
            _ => Ok(Place::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    const INTERIM: &str = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n";

    /// Judges a text whole and in every two pieces; all must agree.
    fn judge(text: &str) -> Result<(), Fault> {
        let whole = Interim::new(2, 150).advance(text.as_bytes());
        for cut in 0..text.len() {
            let (first, second) = text.as_bytes().split_at(cut);
            let mut pieces = Interim::new(2, 150);
            assert_eq!(pieces.advance(first).and_then(|()| pieces.advance(second)), whole, "{text:?} at {cut}");
        }
        whole
    }

    #[test]
    fn interim_answers_are_counted_and_the_rest_is_not_looked_at() {
        assert_eq!(judge(OK), Ok(()));
        assert_eq!(judge(&format!("{INTERIM}{OK}")), Ok(()));
        assert_eq!(judge(&format!("{INTERIM}{INTERIM}{OK}")), Ok(()));
        assert_eq!(judge(&format!("{INTERIM}{INTERIM}{INTERIM}{OK}")), Err(Fault::Interim));
        // Lines may end with a line feed alone, and a reason phrase may be missing.
        assert_eq!(judge("HTTP/1.1 100\n\nHTTP/1.1 100\n\nHTTP/1.1 100\n\n"), Err(Fault::Interim));
        assert_eq!(judge(&format!("{OK}{}", INTERIM.repeat(9))), Ok(()), "a body is no head");
        assert_eq!(judge(&format!("HTTP/1.1 102 A\r\nx: HTTP/1.1 101 B\r\n\r\n{OK}")), Ok(()), "nor is a header");
    }

    #[test]
    fn a_switch_of_protocols_is_a_fault() {
        assert_eq!(judge("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n"), Err(Fault::Switched));
        assert_eq!(judge(&format!("{INTERIM}HTTP/1.1 101 Switching Protocols\r\n\r\n")), Err(Fault::Switched));
    }

    #[test]
    fn interim_answers_and_empty_lines_count_towards_the_head() {
        let filled = |length: usize| format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(length - 24));
        assert_eq!(judge(&format!("{INTERIM}{}", filled(150 - INTERIM.len()))), Ok(()));
        assert_eq!(judge(&format!("{INTERIM}{}", filled(151 - INTERIM.len()))), Err(Fault::Head));
        assert_eq!(judge(&format!("\r\n{}", filled(148))), Ok(()));
        assert_eq!(judge(&format!("\r\n{}", filled(149))), Err(Fault::Head));
        assert_eq!(judge(&"\r\n".repeat(76)), Err(Fault::Head));
        assert_eq!(judge(&format!("{INTERIM}{}", "\n".repeat(151 - INTERIM.len()))), Err(Fault::Head));
    }
}
