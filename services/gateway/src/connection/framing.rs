//! Finds where HTTP/1.1 requests begin and end, in the bytes as they arrive.
//!
//! hyper tolerates input that other servers may read differently: lines that end with a line feed
//! alone, a length together with chunks, a length given twice. Behind a proxy, each of these can
//! smuggle a request past it (RFC 9112, sections 2.2, 6.1 and 11.2), so they are faults here.
//! Faults that hyper refuses itself are also found here first, because hyper's own answers have no
//! reason.

use crate::connection::head::{self, Fault, Limits};

/// Maximum length of a line outside a head, in bytes. hyper takes less in the extensions of chunks.
const LINE_BYTES: usize = 64 * 1024;
const LONG_LINE: Fault = Fault::Malformed("a line between chunks is too long");

/// Parser of the framing of all requests of a connection.
#[derive(Debug)]
pub(crate) struct Framing {
    limits: Limits,
    position: Position,
    head: Head,
    /// Number of heads that passed.
    heads: u64,
    /// Where the current line begins, counted from the first byte that has not passed.
    line_at: usize,
    /// Bytes of that line that are known to have no line feed.
    searched: usize,
}

/// How far bytes may pass.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    /// Number of bytes that may pass. The rest belongs to a head or a line that has not ended, or
    /// is at fault.
    pub(crate) passed: usize,
    /// Why nothing more may pass.
    pub(crate) fault: Option<Fault>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Position {
    /// In the lines of a head.
    #[default]
    Head,
    /// In a body with this many bytes left.
    Body(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
}

/// What the current head has said so far.
#[derive(Debug, Default)]
struct Head {
    lines: usize,
    length: Option<u64>,
    chunked: bool,
}

impl Framing {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            position: Position::default(),
            head: Head::default(),
            heads: 0,
            line_at: 0,
            searched: 0,
        }
    }

    /// Returns the number of heads that passed.
    pub(crate) fn heads(&self) -> u64 {
        self.heads
    }

    /// Returns whether the next byte belongs to a head.
    pub(crate) fn is_in_head(&self) -> bool {
        self.position == Position::Head
    }

    /// Checks bytes. They begin with the bytes that the last call did not let pass. A head passes
    /// as a whole, together with the empty lines before it.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Judged {
        let (mut at, mut passed) = (std::mem::take(&mut self.line_at), 0);
        let mut searched = std::mem::take(&mut self.searched);
        while at < bytes.len() {
            match &mut self.position {
                Position::Body(left) => {
                    at += skip(bytes.len() - at, left);
                    if *left == 0 {
                        self.position = Position::Head;
                    }
                    passed = at;
                }
                Position::Chunk(left) => {
                    at += skip(bytes.len() - at, left);
                    if *left == 0 {
                        self.position = Position::ChunkEnd;
                    }
                    passed = at;
                }
                _ => {
                    let from = at + std::mem::take(&mut searched);
                    let Some(end) = bytes[from..].iter().position(|byte| *byte == b'\n') else {
                        break;
                    };
                    let line = &bytes[at..from + end];
                    if !self.is_in_head() && line.len() > LINE_BYTES {
                        return Judged { passed, fault: Some(LONG_LINE) };
                    }
                    at = from + end + 1;
                    let (in_head, began) = (self.is_in_head(), self.head.lines > 0);
                    if let Err(fault) =
                        self.line(line).and_then(|()| self.whole_head(began, &bytes[passed..at]))
                    {
                        return Judged { passed, fault: Some(fault) };
                    }
                    // Empty lines before a request belong to its head and count toward its limit.
                    // hyper would buffer them and, if there are too many, answer without a reason.
                    if !in_head || began && self.head.lines == 0 {
                        passed = at;
                    }
                }
            }
        }
        (self.line_at, self.searched) = (at - passed, bytes.len() - at);
        let limit = if self.is_in_head() { self.limits.bytes } else { LINE_BYTES };
        let fault = (bytes.len() - passed > limit).then_some(if self.is_in_head() {
            Fault::HeadersTooLarge
        } else {
            LONG_LINE
        });
        Judged { passed, fault }
    }

    /// Checks a head that has just ended, as hyper will.
    fn whole_head(&mut self, began: bool, bytes: &[u8]) -> Result<(), Fault> {
        if began && self.head.lines == 0 {
            if let Err(fault) = head::check(bytes, &self.limits) {
                // The body has not begun.
                self.position = Position::Head;
                return Err(fault);
            }
            self.heads += 1;
        }
        Ok(())
    }

    /// Takes a line without its line feed.
    fn line(&mut self, line: &[u8]) -> Result<(), Fault> {
        const END: Fault = Fault::Malformed("lines must end with carriage return and line feed");
        let line = line.strip_suffix(b"\r").filter(|line| !line.contains(&b'\r')).ok_or(END)?;
        match self.position {
            Position::Head => self.head_line(line)?,
            Position::ChunkSize => {
                let size = chunk_size(line)?;
                self.position = if size == 0 { Position::Trailers } else { Position::Chunk(size) };
            }
            Position::ChunkEnd if line.is_empty() => self.position = Position::ChunkSize,
            Position::ChunkEnd => return Err(Fault::Malformed("a chunk is longer than its size")),
            Position::Trailers if line.is_empty() => self.position = Position::Head,
            Position::Trailers | Position::Body(_) | Position::Chunk(_) => {}
        }
        Ok(())
    }

    fn head_line(&mut self, line: &[u8]) -> Result<(), Fault> {
        const FRAMING: Fault = Fault::Malformed(
            "there must be one Content-Length with a number, or one Transfer-Encoding: chunked",
        );
        if self.head.lines == 0 {
            // Empty lines before a request are ignored.
            self.head.lines = usize::from(!line.is_empty());
            return Ok(());
        }
        if line.is_empty() {
            self.position = match std::mem::take(&mut self.head) {
                Head { chunked: true, .. } => Position::ChunkSize,
                Head { length: Some(length @ 1..), .. } => Position::Body(length),
                _ => Position::Head,
            };
            return Ok(());
        }
        self.head.lines += 1;
        if line[0] == b' ' || line[0] == b'\t' {
            return Err(Fault::Malformed("a header field must not be folded over several lines"));
        }
        let colon = line
            .iter()
            .position(|byte| *byte == b':')
            .ok_or(Fault::Malformed("a header field has no colon"))?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            if self.head.chunked || self.head.length.is_some() {
                return Err(FRAMING);
            }
            self.head.length = Some(decimal(value).ok_or(FRAMING)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.head.chunked
                || self.head.length.is_some()
                || !value.eq_ignore_ascii_case(b"chunked")
            {
                return Err(FRAMING);
            }
            self.head.chunked = true;
        }
        Ok(())
    }
}

/// Takes up to `there` bytes off the count. Returns how many.
fn skip(there: usize, left: &mut u64) -> usize {
    let taken = usize::try_from(*left).map_or(there, |left| left.min(there));
    *left -= taken as u64;
    taken
}

fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// Parses hexadecimal digits. Chunk extensions are ignored.
fn chunk_size(line: &[u8]) -> Result<u64, Fault> {
    let end = line.iter().position(|byte| *byte == b';').unwrap_or(line.len());
    let digits = line[..end].trim_ascii_end();
    let good = (1..=16).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    let size = std::str::from_utf8(digits)
        .ok()
        .filter(|_| good)
        .and_then(|text| u64::from_str_radix(text, 16).ok());
    size.ok_or(Fault::Malformed("the size of a chunk must be 1 to 16 hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[&str] = &[
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n\n\n\n\nGET / HTTP/1.1\r\nHost: \
            a\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n3;x=\"y\"\r\n\n\n\n\r\n0\r\nA: b\r\n\
            \r\nGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length:0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    ];
    const BAD: &[&str] = &[
        "\n",
        "GET / HTTP/1.1\n",
        "GET / HTTP/1.1\r\nHost: a\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nA: b\rC: d\r\n",
        "GET / HTTP/1.1\r\nA: b\r\n c\r\n",
        "GET / HTTP/1.1\r\nA\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n",
        "POST / HTTP/1.1\r\nContent-Length: +1\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.2\r\n\r\n",
        "GET /\r\n\r\n",
        "\0 / HTTP/1.1\r\n\r\n",
        "GET /\x7f HTTP/1.1\r\n\r\n",
        "GET a b HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nA b: c\r\n\r\n",
        "GET / HTTP/1.1\r\nA: \0\r\n\r\n",
        "GET / HTTP/1.1\r\n: b\r\n\r\n",
        // After a complete request.
        "POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nxGET / HTTP/1.1\n",
    ];

    const LIMITS: Limits = Limits { bytes: 8 * 1024, fields: 4 };

    /// Checks pieces one after the other, as a connection does. Returns how much passed, and the
    /// fault.
    fn judge(pieces: &[&[u8]]) -> (usize, Option<Fault>) {
        let (mut framing, mut held, mut passed) = (Framing::new(LIMITS), Vec::new(), 0);
        for piece in pieces {
            held.extend_from_slice(piece);
            let judged = framing.advance(&held);
            passed += judged.passed;
            held.drain(..judged.passed);
            if judged.fault.is_some() {
                return (passed, judged.fault);
            }
        }
        (passed, None)
    }

    #[test]
    fn good_requests_pass_and_nothing_passes_of_a_head_at_fault() {
        for good in GOOD {
            assert_eq!(judge(&[good.as_bytes()]), (good.len(), None), "{good:?}");
        }
        for bad in BAD {
            let (passed, fault) = judge(&[bad.as_bytes()]);
            assert!(matches!(fault, Some(Fault::Malformed(_))), "{bad:?}: {fault:?}");
            // Only complete heads before the fault, and chunks without the fault.
            assert!(passed == 0 || bad[..passed].contains("\r\n\r\n"), "{bad:?}: {passed}");
            let mut framing = Framing::new(LIMITS);
            framing.advance(bad.as_bytes());
            assert_eq!(framing.is_in_head(), !bad[..passed].contains("chunked"), "{bad:?}");
        }
    }

    #[test]
    fn a_head_is_held_until_it_is_whole() {
        let head = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for cut in 0..head.len() {
            assert_eq!(judge(&[&head.as_bytes()[..cut]]), (0, None), "{cut}");
        }
        let mut framing = Framing::new(LIMITS);
        framing.advance(format!("{head}{head}").as_bytes());
        assert_eq!(framing.heads(), 2);
    }

    #[test]
    fn pieces_are_judged_like_the_whole() {
        for text in GOOD.iter().chain(BAD) {
            let whole = judge(&[text.as_bytes()]);
            for cut in 0..text.len() {
                let (first, second) = text.as_bytes().split_at(cut);
                assert_eq!(judge(&[first, second]), whole, "{text:?} at {cut}");
            }
            let single: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(judge(&single), whole, "{text:?}");
        }
    }

    #[test]
    fn heads_and_lines_are_bounded() {
        assert_eq!(judge(&[&vec![b'a'; LIMITS.bytes]]), (0, None));
        assert_eq!(judge(&[&vec![b'a'; LIMITS.bytes + 1]]), (0, Some(Fault::HeadersTooLarge)));
        let first = b"GET / HTTP/1.1\r\n\r\n".as_slice();
        for lines in [b"\r\n".repeat(LIMITS.bytes / 2), b"\r\n".repeat(LIMITS.bytes)] {
            let fault = (lines.len() > LIMITS.bytes).then_some(Fault::HeadersTooLarge);
            assert_eq!(judge(&[first, &lines]), (first.len(), fault));
            assert_eq!(judge(&[&[first, &lines].concat()]), (first.len(), fault));
        }
        let head = [b"\r\n".repeat(LIMITS.bytes / 2).as_slice(), first].concat();
        assert_eq!(judge(&[&head]), (0, Some(Fault::HeadersTooLarge)));
        let chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice();
        assert_eq!(
            judge(&[chunked, &vec![b'1'; LINE_BYTES + 1]]),
            (chunked.len(), Some(LONG_LINE))
        );
        // In one piece, with its end and more.
        let extension = vec![b'a'; LINE_BYTES];
        let whole = [chunked, b"1;", &extension, b"\r\nx\r\n0\r\n\r\n"].concat();
        assert_eq!(judge(&[&whole]), (chunked.len(), Some(LONG_LINE)));
    }
}
