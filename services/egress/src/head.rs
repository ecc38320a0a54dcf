//! Reads the head of a request as raw bytes before an HTTP library sees it. It is stricter than
//! libraries: one that accepts a bare line feed or a folded line reads another request than the
//! next program does.

use std::{fmt, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

/// The reason why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadHead {
    Malformed(&'static str),
    TooLong,
    TooSlow,
    /// The client went away, so there is no response.
    Gone,
}

impl BadHead {
    /// Returns the status and the text of the response, or `None` if the client is gone.
    fn answer(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Malformed(text) => Some(("400 Bad Request", text)),
            Self::TooLong => {
                Some(("431 Request Header Fields Too Large", "the request is too long"))
            }
            Self::TooSlow => Some(("408 Request Timeout", "the request came too slowly")),
            Self::Gone => None,
        }
    }
}

impl fmt::Display for BadHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.answer().map_or("the client went away", |(_, text)| text))
    }
}

/// Reads a whole head of at most `limit` bytes within `deadline`. Nothing may follow it before the
/// response.
pub(crate) async fn read<S>(
    stream: &mut S,
    limit: usize,
    deadline: Duration,
) -> Result<Vec<u8>, BadHead>
where
    S: AsyncRead + Unpin,
{
    timeout(deadline, read_all(stream, limit)).await.unwrap_or(Err(BadHead::TooSlow))
}

async fn read_all<S: AsyncRead + Unpin>(stream: &mut S, limit: usize) -> Result<Vec<u8>, BadHead> {
    let mut head = Vec::with_capacity(512);
    let mut scan = Scan::default();
    loop {
        if head.len() >= limit {
            return Err(BadHead::TooLong);
        }
        // No byte beyond the limit is read. The part within it is checked, and the rest stays in
        // the socket.
        let room = (limit - head.len()) as u64;
        let read =
            (&mut *stream).take(room).read_buf(&mut head).await.map_err(|_| BadHead::Gone)?;
        if read == 0 {
            return Err(if head.is_empty() {
                BadHead::Gone
            } else {
                BadHead::Malformed("the request is cut off")
            });
        }
        if scan.advance(&head).map_err(BadHead::Malformed)? {
            return Ok(head);
        }
    }
}

/// Answers a refused head, and closes the connection. Reads and drops what the client still sends
/// for a moment, so that the response reaches it instead of a reset.
pub(crate) async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, bad: BadHead) {
    let Some((status, text)) = bad.answer() else { return };
    let answer = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: \
            {}\r\n\r\n{text}\n",
        text.len() + 1
    );
    let farewell = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(256 * 1024), &mut tokio::io::sink()).await
    };
    // Does not wait for a client that does not read.
    let _ = timeout(Duration::from_secs(1), farewell).await;
}

/// The part of a head that has been checked.
#[derive(Default)]
struct Scan {
    at: usize,
    line_at: usize,
    lines: usize,
}

impl Scan {
    /// Checks the bytes that arrived since the last call. Returns whether the head is complete.
    fn advance(&mut self, head: &[u8]) -> Result<bool, &'static str> {
        while let Some(&byte) = head.get(self.at) {
            let after_return = self.at > self.line_at && head[self.at - 1] == b'\r';
            match byte {
                b'\n' if after_return => {
                    let line = &head[self.line_at..self.at - 1];
                    if line.is_empty() {
                        return self.end(head);
                    }
                    if self.lines == 0 {
                        check_request_line(line)?
                    } else {
                        check_field(line)?
                    }
                    self.lines += 1;
                    self.line_at = self.at + 1;
                }
                b'\n' => return Err("a line ends without a carriage return"),
                _ if after_return => return Err("a carriage return stands alone"),
                b'\r' | b'\t' | b' '..=b'~' => {}
                _ => return Err("the request contains a byte that is not text"),
            }
            self.at += 1;
        }
        Ok(false)
    }

    fn end(&self, head: &[u8]) -> Result<bool, &'static str> {
        if self.lines == 0 {
            return Err("the request begins with an empty line");
        }
        if self.at + 1 < head.len() {
            return Err("bytes follow the request before it was answered");
        }
        Ok(true)
    }
}

fn check_request_line(line: &[u8]) -> Result<(), &'static str> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (method, target, version, more) = (parts.next(), parts.next(), parts.next(), parts.next());
    let good = method.is_some_and(is_token)
        && target.is_some_and(|target| !target.is_empty() && !target.contains(&b'\t'))
        && version == Some(b"HTTP/1.1")
        && more.is_none();
    if good { Ok(()) } else { Err("the request line must be \"CONNECT host:port HTTP/1.1\"") }
}

/// The name of a field ends at its colon. A line that begins with a space would continue the last
/// one.
fn check_field(line: &[u8]) -> Result<(), &'static str> {
    let name = line.iter().position(|byte| *byte == b':').map(|colon| &line[..colon]);
    if name.is_some_and(is_token) { Ok(()) } else { Err("a header line has no valid name") }
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty()
        && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(head: &[u8]) -> Result<bool, &'static str> {
        Scan::default().advance(head)
    }

    #[test]
    fn takes_plain_heads_only() {
        assert_eq!(scan(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"), Ok(true));
        assert_eq!(scan(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r"), Ok(false));
        for bad in [
            "\r\nCONNECT a:1 HTTP/1.1\r\n\r\n",
            "CONNECT a:1 HTTP/1.1\n\n",
            "CONNECT a:1 HTTP/1.1\r\nHost: a:1\n\r\n",
            "CONNECT a:1 HTTP/1.1\r\nA: b\rc\r\n\r\n",
            "CONNECT a:1 HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
            "CONNECT a:1 HTTP/1.1\r\nA : b\r\n\r\n",
            "CONNECT a:1 HTTP/1.1\r\n: b\r\n\r\n",
            "CONNECT a:1 HTTP/1.1\r\nA\r\n\r\n",
            "CONNECT a:1\r\n",
            "CONNECT a:1 HTTP/1.0\r\n",
            "CONNECT  a:1 HTTP/1.1\r\n",
            "CONNECT a:1 HTTP/1.1 \r\n",
            "CONNECT a:1 HTTP/1.1\r\nA: \0\r\n\r\n",
            "CONNECT \u{e9}:1 HTTP/1.1\r\n",
            "CONNECT a:1 HTTP/1.1\r\n\r\nx",
            "PRI * HTTP/2.0\r\n",
            "\u{16}\u{3}\u{1}",
            "GET /\r\n",
        ] {
            assert!(scan(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_are_judged_like_the_whole(
            head in "(CONNECT a:1 HTTP/1.1\r\n)?[A:\r\n \t]{0,12}(\r\n\r\n)?x?",
            cut in 0usize..40,
        ) {
            let whole = scan(head.as_bytes());
            let mut pieces = Scan::default();
            let cut = cut.min(head.len());
            let first = pieces.advance(&head.as_bytes()[..cut]);
            // A head that is complete before the last piece is answered then, and the rest is not
            // read.
            if first == Ok(false) {
                prop_assert_eq!(pieces.advance(head.as_bytes()), whole);
            } else if first.is_err() {
                prop_assert!(whole.is_err());
            }
        }
    }
}
