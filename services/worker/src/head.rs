//! The head of an answer, read before the HTTP library reads it: leniently, but strictly in what
//! tells where the answer ends.
//!
//! The library refuses an answer for a folded line or a header field too many, although its status
//! was clear. So [`Reader`] finds the head of each exchange's final answer. A head that is regular
//! goes on as it came. For any other, the library gets one that `rewrite` makes of it.

use outrider_proto::dispatch::Header;

use crate::{
    response::Bounds,
    rewrite::{Rewritten, rewrite},
    wire::{Fault, Watch},
};

/// Header fields of a head that is passed on as it is: the HTTP library takes no more.
const FIELDS: usize = 100;
/// Longest name of a field in such a head: the HTTP library has a limit too.
const NAME_BYTES: usize = 256;
/// The status code ends within so many bytes of its line.
const STATUS_BYTES: usize = 32;

/// The bounds on what comes before a body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadBounds {
    /// Interim answers.
    pub(crate) interim: usize,
    /// Bytes of the head, and of the interim answers and empty lines before it.
    pub(crate) bytes: usize,
    /// What is kept of its header fields.
    pub(crate) kept: Bounds,
}

/// What the HTTP library is to read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// Nothing yet: the head is not whole.
    More,
    /// The bytes as they came.
    Same,
    /// These bytes instead of all that came.
    Instead(Vec<u8>),
    /// A head of our own, and then these bytes.
    Rewritten(Rewritten, Vec<u8>),
}

/// What is kept of a rewritten head.
pub(crate) type Fields = Vec<Header>;

/// Reads the bytes of one exchange until the head of its final answer has come.
#[derive(Debug)]
pub(crate) struct Reader {
    bounds: HeadBounds,
    place: Place,
    interim: usize,
    /// What came and was not passed on.
    held: Vec<u8>,
    /// Where the line under way begins, and how far it was looked at.
    line: usize,
    looked: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before or in a status line.
    Status,
    /// In the fields of an interim answer.
    Interim,
    /// In the fields of the final answer, whose head began there.
    Final { begin: usize },
    /// After its head.
    Done,
}

/// Where the final head lies.
struct Found {
    begin: usize,
    end: usize,
    /// It is larger than what is read of one.
    cut: bool,
}

impl Reader {
    pub(crate) fn new(bounds: HeadBounds) -> Self {
        Self {
            bounds,
            place: Place::Status,
            interim: bounds.interim,
            held: Vec::new(),
            line: 0,
            looked: 0,
        }
    }

    /// Reads the next bytes, and tells the watch the status as soon as its line has come.
    pub(crate) fn advance(&mut self, bytes: &[u8], watch: &Watch) -> Result<Read, Fault> {
        if self.place == Place::Done {
            return Ok(Read::Same);
        }
        let mut held = std::mem::take(&mut self.held);
        let whole = held.is_empty();
        let text = if whole {
            bytes
        } else {
            held.extend_from_slice(bytes);
            &held
        };
        let Some(Found { begin, end, cut }) = self.find(text, watch)? else {
            self.held = if whole { bytes.to_vec() } else { held };
            return Ok(Read::More);
        };
        self.place = Place::Done;
        let head = &text[begin..end];
        if !cut && is_regular(head) {
            return Ok(if whole && begin == 0 {
                Read::Same
            } else {
                Read::Instead(text[begin..].to_vec())
            });
        }
        let rewritten = rewrite(head, cut, self.bounds.kept);
        let rest = if rewritten.ends { Vec::new() } else { text[end..].to_vec() };
        Ok(Read::Rewritten(rewritten, rest))
    }

    /// Looks for the end of the final head, line by line.
    fn find(&mut self, text: &[u8], watch: &Watch) -> Result<Option<Found>, Fault> {
        loop {
            let length = text[self.looked..].iter().position(|byte| *byte == b'\n');
            let end = length.map_or(text.len(), |length| self.looked + length + 1);
            if self.place == Place::Status {
                // Before the line is whole too: who speaks another protocol may say no more.
                status(without_end(&text[self.line..end]))?;
            }
            if end > self.bounds.bytes {
                return match self.place {
                    Place::Final { begin } => Ok(Some(Found { begin, end: self.line, cut: true })),
                    _ => Err(Fault::Head),
                };
            }
            if length.is_none() {
                self.looked = end;
                return Ok(None);
            }
            let begin = std::mem::replace(&mut self.line, end);
            self.looked = end;
            let line = without_end(&text[begin..end]);
            self.place = match self.place {
                Place::Status if line.is_empty() => Place::Status,
                Place::Status => self.begun(begin, line, watch)?,
                Place::Interim if line.is_empty() => Place::Status,
                Place::Final { begin } if line.is_empty() => {
                    return Ok(Some(Found { begin, end, cut: false }));
                }
                place => place,
            };
        }
    }

    /// An answer has begun with this line.
    fn begun(&mut self, begin: usize, line: &[u8], watch: &Watch) -> Result<Place, Fault> {
        match status(line)?.ok_or(Fault::NotHttp)? {
            101 => Err(Fault::Switched),
            100..200 => {
                self.interim = self.interim.checked_sub(1).ok_or(Fault::Interim)?;
                Ok(Place::Interim)
            }
            status => {
                watch.has_status(status);
                Ok(Place::Final { begin })
            }
        }
    }
}

/// A line without its end: a line feed, with or without a carriage return.
pub(crate) fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The code in a status line; none while it has not come. What follows it is not looked at.
pub(crate) fn status(line: &[u8]) -> Result<Option<u16>, Fault> {
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

pub(crate) fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// What a value, or a reason, may hold.
pub(crate) fn is_text(byte: &u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// Whether this is the name of a header field: a token of RFC 9110.
pub(crate) fn is_name(name: &[u8]) -> bool {
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

/// A Content-Length of digits alone.
pub(crate) fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // The largest is no length for the HTTP library.
    value.iter().try_fold(0, |length: u64, digit| {
        let length = length.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        i64::try_from(length).is_ok().then_some(length)
    })
}

/// Whether the HTTP library takes this head, and there is no doubt about where the answer ends.
fn is_regular(head: &[u8]) -> bool {
    let mut lines = head.split_inclusive(|byte| *byte == b'\n');
    let first = lines.next().and_then(|line| line.strip_suffix(b"\r\n"));
    let Some(reason) =
        first.and_then(|line| line.strip_prefix(b"HTTP/1.1 ")).and_then(|code| code.get(3..))
    else {
        return false;
    };
    // A code that begins with a blank had another one before it.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::options::Options;

    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    const INTERIM: &str = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n";

    fn reader() -> Reader {
        Reader::new(HeadBounds { interim: 2, bytes: 150, kept: Bounds::new(&Options::default()) })
    }

    /// What became of an exchange: all that is passed on, and the status.
    #[derive(Debug, PartialEq)]
    struct Came {
        result: Result<Vec<u8>, Fault>,
        fields: Option<Fields>,
        ends: bool,
        status: Option<u16>,
    }

    fn read(pieces: &[&[u8]]) -> Came {
        let (mut reader, watch) = (reader(), Watch::default());
        let mut came = Came { result: Ok(Vec::new()), fields: None, ends: false, status: None };
        for piece in pieces {
            let passed = match reader.advance(piece, &watch) {
                Ok(_) if came.ends => continue,
                Ok(Read::More) => continue,
                Ok(Read::Same) => piece.to_vec(),
                Ok(Read::Instead(bytes)) => bytes,
                Ok(Read::Rewritten(rewritten, rest)) => {
                    came.ends = rewritten.ends;
                    came.fields = Some(rewritten.fields);
                    [rewritten.head, rest].concat()
                }
                Err(fault) => {
                    came.result = Err(fault);
                    break;
                }
            };
            if let Ok(all) = &mut came.result {
                all.extend(passed);
            }
        }
        came.status = watch.status();
        came
    }

    /// Reads a text whole, in every two pieces and byte by byte; all must agree.
    fn judge(text: &[u8]) -> Came {
        let whole = read(&[text]);
        for cut in 0..text.len() {
            let (first, second) = text.split_at(cut);
            assert_eq!(
                read(&[first, second]),
                whole,
                "{:?} at {cut}",
                text.escape_ascii().to_string()
            );
        }
        assert_eq!(read(&text.chunks(1).collect::<Vec<_>>()), whole);
        whole
    }

    fn faulty(text: &str) -> Option<Fault> {
        judge(text.as_bytes()).result.err()
    }

    #[test]
    fn a_regular_head_goes_on_as_it_came() {
        for text in [
            OK,
            "HTTP/1.1 204\r\n\r\n",
            "HTTP/1.1 500 \u{e9}\r\nX-A:b \r\ntransfer-encoding: Chunked\r\n\r\n0\r\n\r\n",
        ] {
            let came = judge(text.as_bytes());
            assert_eq!(
                (came.result, came.fields),
                (Ok(text.as_bytes().to_vec()), None),
                "{text:?}"
            );
        }
        let (mut reader, watch) = (reader(), Watch::default());
        assert_eq!(reader.advance(OK.as_bytes(), &watch), Ok(Read::Same));
        assert_eq!((reader.held.capacity(), watch.status()), (0, Some(200)), "nothing was copied");
    }

    #[test]
    fn interim_answers_are_counted_and_left_out() {
        for many in 0..=2 {
            let came = judge(format!("{}{OK}body", INTERIM.repeat(many)).as_bytes());
            assert_eq!(came.result, Ok(format!("{OK}body").into_bytes()));
        }
        assert_eq!(faulty(&format!("{}{OK}", INTERIM.repeat(3))), Some(Fault::Interim));
        // Lines may end with a line feed alone, and a reason phrase may be missing.
        assert_eq!(
            faulty("HTTP/1.1 100\n\nHTTP/1.1 100\n\nHTTP/1.1 100\n\n"),
            Some(Fault::Interim)
        );
        assert_eq!(faulty(&format!("{OK}{}", INTERIM.repeat(9))), None, "a body is no head");
        assert_eq!(
            faulty(&format!("HTTP/1.1 102 A\r\nx: HTTP/1.1 101 B\r\n\r\n{OK}")),
            None,
            "nor is a header"
        );
    }

    #[test]
    fn a_switch_of_protocols_is_a_fault() {
        assert_eq!(
            faulty("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n"),
            Some(Fault::Switched)
        );
        assert_eq!(
            faulty(&format!("{INTERIM}HTTP/1.1 101 Switching Protocols\r\n\r\n")),
            Some(Fault::Switched)
        );
    }

    #[test]
    fn what_is_not_http_is_told_at_once() {
        for text in [
            "SSH-2.0-x",
            "S",
            "HTTP/2 200",
            "HTTP/1.x",
            "HTTP/1.1200",
            "HTTP/1.1 099 A",
            "HTTP/1.1 2x0",
            "HTTP/1.1 2000",
        ] {
            assert_eq!(faulty(text), Some(Fault::NotHttp), "{text}");
        }
        for text in ["HTTP/1.1\r\n", "HTTP/1.1 20\r\n", "HTTP/1.1 2", "HTTP"] {
            let fault = text.ends_with('\n').then_some(Fault::NotHttp);
            let came = judge(text.as_bytes());
            assert_eq!((came.result.err(), came.status), (fault, None), "{text}");
        }
        assert_eq!(faulty(&format!("HTTP/1.1{}", " ".repeat(40))), Some(Fault::NotHttp));
    }

    #[test]
    fn the_status_is_known_when_its_line_has_come() {
        assert_eq!(judge(b"HTTP/1.1 200 OK\r").status, None);
        for text in [
            "HTTP/1.1 299 OK\r\n",
            "HTTP/1.0 299\n",
            "HTTP/1.1 \t 299\tA\r\n",
            "HTTP/1.7 299\r\nx",
            "\r\n\nHTTP/1.1 299 \x01\r\n",
        ] {
            assert_eq!(judge(text.as_bytes()).status, Some(299), "{text:?}");
        }
        assert_eq!(judge(format!("{INTERIM}HTTP/1.1 503 A\r\nx").as_bytes()).status, Some(503));
    }

    #[test]
    fn interim_answers_and_empty_lines_count_towards_the_head() {
        let filled =
            |length: usize| format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(length - 24));
        for (before, after) in [(INTERIM, 150 - INTERIM.len()), ("\r\n", 148), ("", 150)] {
            let fits = judge(format!("{before}{}", filled(after)).as_bytes());
            assert_eq!((fits.fields, fits.ends), (None, false));
            let beyond = judge(format!("{before}{}", filled(after + 1)).as_bytes());
            // It ends before its body, with the fields that came.
            assert_eq!(
                (beyond.ends, beyond.status, beyond.fields.unwrap().len()),
                (true, Some(200), 1)
            );
        }
        assert_eq!(faulty(&"\r\n".repeat(76)), Some(Fault::Head));
        assert_eq!(
            faulty(&format!("{INTERIM}{}", "\n".repeat(151 - INTERIM.len()))),
            Some(Fault::Head)
        );
        assert_eq!(faulty(&format!("HTTP/1.1 200 {}", "a".repeat(150))), Some(Fault::Head));
    }

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

    /// Pieces of heads, regular and not, as they come to be put together.
    fn lines() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![
            Just(b"HTTP/1.1 200 OK\r\n".to_vec()),
            Just(b"HTTP/1.0  404 \r\n".to_vec()),
            Just(b"HTTP/1.1 100 A\r\n".to_vec()),
            Just(b"content-length: 3\r\n".to_vec()),
            Just(b"Content-Length : 4\n".to_vec()),
            Just(b"transfer-encoding: chunked\r\n".to_vec()),
            Just(b"Transfer-Encoding\x0b: chunked\r\n".to_vec()),
            Just(b" folded\r\n".to_vec()),
            Just(b"no colon\r\n".to_vec()),
            Just(b"x: \0\r\x7f\xff\r\n".to_vec()),
            Just(b"\r\n".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..8),
            "[a-zA-Z :\t-]{0,12}\r\n".prop_map(String::into_bytes),
        ];
        proptest::collection::vec(line, 0..8).prop_map(|lines| lines.concat())
    }

    proptest! {
        #[test]
        fn pieces_and_the_whole_agree(mut text in lines(), begins in any::<bool>()) {
            if begins {
                text.splice(0..0, *b"HTTP/1.1 200 OK\r\n");
            }
            judge(&text);
        }

        #[test]
        fn what_is_passed_on_is_a_head_of_strict_http(mut text in lines()) {
            text.splice(0..0, *b"HTTP/1.1 200 OK\r\n");
            text.extend(b"\r\n\r\n");
            let came = judge(&text);
            let passed = came.result.unwrap();
            let mut fields = [httparse::EMPTY_HEADER; FIELDS];
            let mut strict = httparse::Response::new(&mut fields);
            prop_assert!(strict.parse(&passed).unwrap().is_complete());
            prop_assert_eq!(strict.code, came.status);
            let frames = |name: &str| strict.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).count();
            prop_assert!(frames("content-length") + frames("transfer-encoding") <= 1);
        }
    }
}
