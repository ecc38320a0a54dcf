//! Rewrites heads that the HTTP library would refuse, or might frame differently than a program
//! before it.
//!
//! Fields that determine the end of the response are read as RFC 9112 requires, all others as far
//! as possible. The library gets a head with only the status and the framing. In doubt, the
//! connection is not used again, because the response to one event must never be taken for that to
//! another.

use super::syntax::{is_blank, is_name, is_text, length, status, without_end};
use crate::exchange::answer_bounds::AnswerBounds;

/// The replacement of a head for the HTTP library, and its recorded fields.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rewritten {
    pub(crate) head: Vec<u8>,
    pub(crate) fields: Vec<(String, String)>,
    /// Whether nothing after the head is read, because the end of the body is unknown or the head
    /// was not read completely.
    pub(crate) ends: bool,
}

/// Makes a plain head of one with a status line. `cut` says that the head is incomplete.
pub(crate) fn rewrite(head: &[u8], cut: bool, bounds: AnswerBounds) -> Rewritten {
    let mut lines = head.split_inclusive(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let mut reading = Reading::new(first, bounds);
    for line in lines {
        reading.line(line);
    }
    reading.end_field();
    reading.conclude(cut)
}

/// The state after the fields read so far.
struct Reading {
    status: u16,
    /// Whether the version is HTTP/1.0.
    old: bool,
    bounds: AnswerBounds,
    room: usize,
    /// The current field. The next line may be folded into it.
    field: Option<(String, Vec<u8>)>,
    fields: Vec<(String, String)>,
    length: Option<u64>,
    /// The codings of all Transfer-Encoding fields, in order.
    codings: Option<Vec<u8>>,
    /// Whether an unreadable field determines the end of the response.
    unreadable: bool,
    /// Whether another part is irregular.
    doubt: bool,
    close: bool,
}

impl Reading {
    fn new(first: &[u8], bounds: AnswerBounds) -> Self {
        let line = without_end(first);
        Self {
            // The line was checked when it arrived.
            status: status(line).ok().flatten().unwrap_or_default(),
            old: line.get(7) == Some(&b'0'),
            doubt: !first.ends_with(b"\r\n") || !is_plain(line),
            room: bounds.header_bytes,
            bounds,
            field: None,
            fields: Vec::new(),
            length: None,
            codings: None,
            unreadable: false,
            close: false,
        }
    }

    fn line(&mut self, line: &[u8]) {
        let bare = !line.ends_with(b"\r\n");
        let line = without_end(line);
        if line.is_empty() {
            self.doubt |= bare;
            return;
        }
        if line.first().is_some_and(is_blank) {
            self.doubt = true;
            match &mut self.field {
                Some((_, value)) => {
                    value.push(b' ');
                    value.extend_from_slice(line.trim_ascii());
                }
                None => self.drop_line(line),
            }
            return;
        }
        self.end_field();
        self.doubt |= bare;
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) =
            colon.map_or((line, b"".as_slice()), |colon| (&line[..colon], &line[colon + 1..]));
        let blanks = name.iter().rev().take_while(|byte| is_blank(byte)).count();
        let name = &name[..name.len() - blanks];
        if colon.is_none() || !is_name(name) {
            return self.drop_line(line);
        }
        self.doubt |= blanks > 0;
        self.field = Some((String::from_utf8_lossy(name).to_ascii_lowercase(), value.to_vec()));
    }

    /// Handles a line that is not a field. It may have been meant as one that determines the end of
    /// the response.
    fn drop_line(&mut self, line: &[u8]) {
        self.doubt = true;
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        let name: Vec<u8> =
            name.iter().filter(|byte| is_name(&[**byte])).map(u8::to_ascii_lowercase).collect();
        let meant = |framing: &[u8]| name.windows(framing.len()).any(|part| part == framing);
        self.unreadable |= meant(b"content-length") || meant(b"transfer-encoding");
    }

    fn end_field(&mut self) {
        let Some((name, mut value)) = self.field.take() else { return };
        for byte in value.iter_mut().filter(|byte| !is_text(byte)) {
            *byte = b' ';
            self.doubt = true;
        }
        let value = value.trim_ascii();
        match name.as_str() {
            "content-length" => self.lengths(value),
            "transfer-encoding" => match &mut self.codings {
                Some(codings) => {
                    codings.push(b',');
                    codings.extend_from_slice(value);
                }
                None => self.codings = Some(value.to_vec()),
            },
            "connection" => {
                self.close |= elements(value).any(|option| option.eq_ignore_ascii_case(b"close"))
            }
            _ => {}
        }
        self.keep(name, value);
    }

    /// Records the field if it fits.
    fn keep(&mut self, name: String, value: &[u8]) {
        if self.fields.len() >= self.bounds.headers || name.len() + value.len() > self.room {
            return;
        }
        let value = String::from_utf8_lossy(value).into_owned();
        if let Some(room) = self.room.checked_sub(name.len() + value.len()) {
            self.room = room;
            self.fields.push((name, value));
        }
    }

    /// All lengths, in a list or in separate fields, must be equal.
    fn lengths(&mut self, value: &[u8]) {
        for element in elements(value) {
            let length = length(element);
            self.unreadable |=
                length.is_none() || self.length.is_some_and(|known| Some(known) != length);
            self.length = length;
        }
    }

    fn conclude(self, cut: bool) -> Rewritten {
        let bodiless = matches!(self.status, 204 | 304);
        let coding = self.codings.as_deref().map(Coding::of);
        let unreadable = cut || self.unreadable || coding == Some(Coding::Unreadable);
        // Chunks in HTTP/1.0 or beside a length are used for smuggling.
        let mixed = coding.is_some() && (self.old || self.length.is_some());
        let mut close = self.close || self.old || self.doubt || mixed || unreadable;
        let framing = match (coding, self.length) {
            _ if bodiless || unreadable => String::new(),
            (Some(Coding::Chunked), _) => "transfer-encoding: chunked\r\n".to_owned(),
            (None, Some(length)) => format!("content-length: {length}\r\n"),
            _ => {
                close = true;
                String::new()
            }
        };
        let close = if close { "connection: close\r\n" } else { "" };
        let head = format!("HTTP/1.1 {} \r\n{framing}{close}\r\n", self.status);
        Rewritten { head: head.into_bytes(), fields: self.fields, ends: unreadable }
    }
}

/// Whether a status line is regular.
fn is_plain(line: &[u8]) -> bool {
    let code = line.strip_prefix(b"HTTP/1.1 ").and_then(<[u8]>::first);
    code.is_some_and(u8::is_ascii_digit) && line.iter().all(is_text)
}

fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// The end of the body according to Transfer-Encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Chunked,
    /// The body ends with the connection.
    ToEnd,
    Unreadable,
}

impl Coding {
    fn of(codings: &[u8]) -> Self {
        let all: Vec<_> = elements(codings).collect();
        let chunked: Vec<_> =
            all.iter().map(|coding| coding.eq_ignore_ascii_case(b"chunked")).collect();
        match chunked.iter().filter(|chunked| **chunked).count() {
            _ if !all.iter().all(|coding| is_name(coding)) => Self::Unreadable,
            0 => Self::ToEnd,
            1 if chunked.last() == Some(&true) => Self::Chunked,
            _ => Self::Unreadable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    fn read(fields: &str) -> Rewritten {
        read_bytes(format!("HTTP/1.1 200 OK\r\n{fields}\r\n").as_bytes())
    }

    fn read_bytes(head: &[u8]) -> Rewritten {
        let bounds = AnswerBounds::new(&Options {
            response_headers_kept: 3,
            response_headers_kept_bytes: 40,
            ..Options::default()
        });
        rewrite(head, false, bounds)
    }

    /// Returns the framing of a head, whether the connection is closed, and whether nothing more is
    /// read.
    fn framing(rewritten: &Rewritten) -> (String, bool, bool) {
        let head = String::from_utf8(rewritten.head.clone()).unwrap();
        let fields = head.strip_prefix("HTTP/1.1 200 \r\n").unwrap().strip_suffix("\r\n").unwrap();
        let close = fields.ends_with("connection: close\r\n");
        (
            fields.trim_end_matches("connection: close\r\n").trim_end().to_owned(),
            close,
            rewritten.ends,
        )
    }

    fn kept(rewritten: &Rewritten) -> Vec<(&str, &str)> {
        rewritten.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    #[test]
    fn fields_are_read_as_far_as_they_can_be() {
        for (fields, expected) in [
            ("X-A: a\r\n\t b\r\n c\r\n", vec![("x-a", "a b c")]),
            (" first\r\nA: b\r\n", vec![("a", "b")]),
            ("no colon\r\n folded\r\nA: b\r\n", vec![("a", "b")]),
            ("A : b\r\nB\t:c\r\n", vec![("a", "b"), ("b", "c")]),
            (": v\r\nn\u{e9}: v\r\na b: v\r\nA: b\r\n", vec![("a", "b")]),
            ("A: b\0c\rd\x01\x7f\r\n", vec![("a", "b c d")]),
            ("A: b\nC: d\r\n", vec![("a", "b"), ("c", "d")]),
            ("A: b:c\r\nA:\r\n", vec![("a", "b:c"), ("a", "")]),
        ] {
            let rewritten = read(&format!("{fields}Content-Length: 5\r\n"));
            let mut expected = expected;
            expected.push(("content-length", "5"));
            expected.truncate(3);
            assert_eq!(kept(&rewritten), expected, "{fields:?}");
            let (length, _, ends) = framing(&rewritten);
            assert_eq!((length.as_str(), ends), ("content-length: 5", false), "{fields:?}");
        }
        assert_eq!(kept(&read_bytes(b"HTTP/1.1 200\r\nx: \xff\r\n\r\n")), [("x", "\u{fffd}")]);
    }

    #[test]
    fn the_fields_that_fit_are_kept() {
        let long = "l".repeat(40);
        let rewritten = read(&format!(
            "a: {long}\r\nb: {}\r\nc: 1\r\nd: {}\r\ne: 2\r\nf: 3\r\ncontent-length: 9\r\n",
            &long[..30],
            &long[..8]
        ));
        assert_eq!(kept(&rewritten), [("b", &long[..30]), ("c", "1"), ("e", "2")]);
        assert_eq!(
            framing(&rewritten),
            ("content-length: 9".into(), false, false),
            "what frames it is looked at"
        );
    }

    #[test]
    fn doubt_closes_the_connection() {
        for fields in [
            "A: b\r\n c\r\n",
            " a\r\n",
            "A : b\r\n",
            "a\r\n",
            ": a\r\n",
            "A: \0\r\n",
            "A: b\n",
            "A: b\rc\r\n",
        ] {
            assert_eq!(
                framing(&read(&format!("{fields}Content-Length: 5\r\n"))),
                ("content-length: 5".into(), true, false),
                "{fields:?}"
            );
        }
        for status in [
            "HTTP/1.1  200 OK",
            "HTTP/1.0 200 OK",
            "HTTP/1.2 200 OK",
            "HTTP/1.1\t200",
            "HTTP/1.1 200 \x01",
        ] {
            let head = format!("{status}\r\nContent-Length: 5\r\n\r\n");
            assert_eq!(
                framing(&read_bytes(head.as_bytes())),
                ("content-length: 5".into(), true, false),
                "{status:?}"
            );
        }
        // Unambiguous heads keep their connection.
        for (fields, length) in [
            ("Content-Length: 5\r\nContent-Length: 05\r\n", "content-length: 5"),
            ("Content-Length: 5, 5\r\n", "content-length: 5"),
            (
                "Transfer-Encoding: gzip\r\nTransfer-Encoding: CHUNKED\r\n",
                "transfer-encoding: chunked",
            ),
        ] {
            assert_eq!(framing(&read(fields)), (length.into(), false, false), "{fields:?}");
            assert!(framing(&read(&format!("Connection: x, Close\r\n{fields}"))).1);
        }
    }

    #[test]
    fn chunks_win_over_a_length_and_the_connection_is_closed() {
        let mixed = "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n";
        assert_eq!(framing(&read(mixed)), ("transfer-encoding: chunked".into(), true, false));
        let old = read_bytes(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(framing(&old), ("transfer-encoding: chunked".into(), true, false));
        for to_end in
            ["", "Transfer-Encoding: gzip\r\n", "Transfer-Encoding: gzip\r\nContent-Length: 5\r\n"]
        {
            assert_eq!(framing(&read(to_end)), (String::new(), true, false), "{to_end:?}");
        }
    }

    #[test]
    fn after_framing_that_cannot_be_read_nothing_is_read() {
        for fields in [
            "Content-Length: -1\r\n",
            "Content-Length:\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: x\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 6\r\n",
            "Content-Length: 5,\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length: 5\r\n 6\r\n",
            "Transfer-Encoding: chunked, gzip\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding:\r\n",
            "Transfer-Encoding: ;chunked\r\n",
            "Transfer-Encoding\x0b: chunked\r\nContent-Length: 2\r\n",
            "Transfer-Encoding chunked\r\nContent-Length: 2\r\n",
            " Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
            "x y\r\n Content-Length: 7\r\nContent-Length: 2\r\n",
            "\u{e9}content-length: 7\r\nTransfer-Encoding: chunked\r\n",
        ] {
            assert_eq!(framing(&read(fields)), (String::new(), true, true), "{fields:?}");
        }
        // Without a body, only the connection is in doubt.
        for status in [204, 304] {
            let head = format!("HTTP/1.1 {status} A\r\nContent-Length: x\r\n\r\n");
            assert_eq!(
                read_bytes(head.as_bytes()).head,
                format!("HTTP/1.1 {status} \r\nconnection: close\r\n\r\n").into_bytes()
            );
        }
    }
}
