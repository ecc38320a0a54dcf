//! Where HTTP/1.1 requests begin and end, in the bytes as they came.
//!
//! hyper forgives what others may read differently: lines that end with a line feed alone, a length beside chunks, a length given
//! twice. Behind a proxy each of them can smuggle a request past it (RFC 9112, sections 2.2, 6.1 and 11.2), so here they are faults.

/// A line at most, in bytes: more than hyper takes of a head or of the extensions of chunks.
const LINE_BYTES: usize = 64 * 1024;

/// Reads along, over all requests of a connection.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    place: Place,
    head: Head,
    /// The begin of a line whose end has not come.
    partial: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the lines of a head.
    #[default]
    Head,
    /// So many bytes before the next head.
    Body(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
}

/// What the head under way has said.
#[derive(Debug, Default)]
struct Head {
    lines: usize,
    length: Option<u64>,
    chunked: bool,
}

/// The request is not to be trusted.
#[derive(Debug, PartialEq, Eq)]
struct Fault;

impl Framing {
    /// Reads the next bytes. None when all is well; else how many bytes are before the end of the line that is at fault.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match self.place {
                Place::Body(left) => {
                    let (taken, left) = skip(rest, left);
                    self.place = if left == 0 { Place::Head } else { Place::Body(left) };
                    at += taken;
                }
                Place::Chunk(left) => {
                    let (taken, left) = skip(rest, left);
                    self.place = if left == 0 { Place::ChunkEnd } else { Place::Chunk(left) };
                    at += taken;
                }
                _ => {
                    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                        self.partial.extend_from_slice(rest);
                        return (self.partial.len() > LINE_BYTES).then_some(at);
                    };
                    if self.whole_line(&rest[..end]).is_err() {
                        return Some(at + end);
                    }
                    at += end + 1;
                }
            }
        }
        None
    }

    fn whole_line(&mut self, end: &[u8]) -> Result<(), Fault> {
        if self.partial.is_empty() {
            return self.line(end);
        }
        let mut line = std::mem::take(&mut self.partial);
        line.extend_from_slice(end);
        let judged = self.line(&line);
        line.clear();
        self.partial = line;
        judged
    }

    /// A line without its line feed.
    fn line(&mut self, line: &[u8]) -> Result<(), Fault> {
        let line = line.strip_suffix(b"\r").filter(|line| !line.contains(&b'\r')).ok_or(Fault)?;
        match self.place {
            Place::Head => self.head_line(line)?,
            Place::ChunkSize => {
                let size = chunk_size(line)?;
                self.place = if size == 0 { Place::Trailers } else { Place::Chunk(size) };
            }
            Place::ChunkEnd if line.is_empty() => self.place = Place::ChunkSize,
            Place::ChunkEnd => return Err(Fault),
            Place::Trailers if line.is_empty() => self.place = Place::Head,
            Place::Trailers | Place::Body(_) | Place::Chunk(_) => {}
        }
        Ok(())
    }

    fn head_line(&mut self, line: &[u8]) -> Result<(), Fault> {
        if self.head.lines == 0 {
            // Empty lines before a request mean nothing.
            self.head.lines = usize::from(!line.is_empty());
            return Ok(());
        }
        if line.is_empty() {
            self.place = match std::mem::take(&mut self.head) {
                Head { chunked: true, .. } => Place::ChunkSize,
                Head { length: Some(length @ 1..), .. } => Place::Body(length),
                _ => Place::Head,
            };
            return Ok(());
        }
        self.head.lines += 1;
        if line[0] == b' ' || line[0] == b'\t' {
            return Err(Fault);
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return Err(Fault) };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            if self.head.chunked || self.head.length.is_some() {
                return Err(Fault);
            }
            self.head.length = Some(decimal(value)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.head.chunked || self.head.length.is_some() || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Fault);
            }
            self.head.chunked = true;
        }
        Ok(())
    }
}

fn skip(bytes: &[u8], left: u64) -> (usize, u64) {
    let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
    (taken, left - taken as u64)
}

fn decimal(text: &[u8]) -> Result<u64, Fault> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits).and_then(|text| text.parse().ok()).ok_or(Fault)
}

/// Hexadecimal digits, and perhaps extensions, which nobody needs.
fn chunk_size(line: &[u8]) -> Result<u64, Fault> {
    let end = line.iter().position(|byte| *byte == b';').unwrap_or(line.len());
    let digits = line[..end].trim_ascii_end();
    let good = (1..=16).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(digits).ok().filter(|_| good);
    text.and_then(|text| u64::from_str_radix(text, 16).ok()).ok_or(Fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[&str] = &[
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n\n\n\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n3;x=\"y\"\r\n\n\n\n\r\n0\r\nA: b\r\n\r\nGET / HTTP/1.1\r\n\r\n",
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
        // Behind a whole request.
        "POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nxGET / HTTP/1.1\n",
    ];

    #[test]
    fn good_requests_pass_and_bad_ones_are_cut_at_the_line_at_fault() {
        for good in GOOD {
            let mut framing = Framing::default();
            assert_eq!(framing.advance(good.as_bytes()), None, "{good:?}");
            assert_eq!(framing.place, Place::Head, "{good:?}");
        }
        for bad in BAD {
            // Each ends with the line feed of its faulty line.
            assert_eq!(Framing::default().advance(bad.as_bytes()), Some(bad.len() - 1), "{bad:?}");
        }
        assert!(Framing::default().advance(&vec![b'a'; LINE_BYTES + 1]).is_some());
    }

    #[test]
    fn pieces_are_judged_like_the_whole() {
        for text in GOOD.iter().chain(BAD) {
            let whole = Framing::default().advance(text.as_bytes()).is_some();
            for cut in 0..text.len() {
                let mut pieces = Framing::default();
                let (first, second) = text.as_bytes().split_at(cut);
                let judged = pieces.advance(first).is_some() || pieces.advance(second).is_some();
                assert_eq!(judged, whole, "{text:?} at {cut}");
            }
        }
    }
}
