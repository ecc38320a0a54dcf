//! A plain reader of HTTP/1.1. Whatever the strict reader lets through must read the same here and
//! in the HTTP library.

/// A request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The target, as it was sent.
    pub target: String,
    /// The version, such as `HTTP/1.1`.
    pub version: String,
    /// Names in lower case, and values without the white space around them.
    pub fields: Vec<(String, Vec<u8>)>,
    /// As much of the body as has arrived.
    pub body: Vec<u8>,
    /// Whether the body is complete.
    pub whole: bool,
}

impl Request {
    /// Returns the values of a field.
    pub fn values<'r>(&'r self, name: &'r str) -> impl Iterator<Item = &'r [u8]> {
        self.fields.iter().filter(move |field| field.0 == name).map(|field| field.1.as_slice())
    }

    /// Whether it must be the last on its connection.
    pub fn is_last(&self) -> bool {
        let says =
            |value: &[u8]| String::from_utf8_lossy(value).to_ascii_lowercase().contains("close");
        self.method == "CONNECT"
            || self.version == "HTTP/1.0"
            || self.values("connection").any(says)
    }
}

type Text<'b> = &'b [u8];

/// Returns all requests, or why the bytes are not requests. Only the body of the last one may be
/// cut off.
pub fn requests(bytes: &[u8]) -> Result<Vec<Request>, String> {
    let (requests, end) = begin(bytes);
    end.map(|()| requests)
}

/// Returns the requests at the beginning, and the reason why reading stopped before the end.
pub fn begin(bytes: &[u8]) -> (Vec<Request>, Result<(), String>) {
    let mut requests = Vec::new();
    let end = read(bytes, &mut requests);
    (requests, end)
}

fn read(mut bytes: &[u8], requests: &mut Vec<Request>) -> Result<(), String> {
    loop {
        while let Some(rest) = bytes.strip_prefix(b"\r\n") {
            bytes = rest;
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let (head, rest) = split(bytes, b"\r\n\r\n").ok_or("a head does not end")?;
        let mut request = head_of(head)?;
        bytes = body_of(&mut request, rest)?;
        let cut_off = !request.whole;
        requests.push(request);
        if cut_off {
            return Ok(());
        }
    }
}

fn split<'b>(bytes: Text<'b>, at: &[u8]) -> Option<(Text<'b>, Text<'b>)> {
    let found = bytes.windows(at.len()).position(|window| window == at)?;
    Some((&bytes[..found], &bytes[found + at.len()..]))
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "it is no text".to_owned())
}

fn head_of(head: &[u8]) -> Result<Request, String> {
    let mut lines = Vec::new();
    let mut rest = head;
    while let Some((line, after)) = split(rest, b"\r\n") {
        lines.push(line);
        rest = after;
    }
    lines.push(rest);
    if lines.iter().any(|line| line.contains(&b'\r') || line.contains(&b'\n')) {
        return Err("a line holds the end of a line".to_owned());
    }
    let words: Vec<_> = lines[0].split(|byte| *byte == b' ').collect();
    let [method, target, version] = words.as_slice() else {
        return Err("the first line has not three words".to_owned());
    };
    let mut request = Request {
        method: text(method)?,
        target: text(target)?,
        version: text(version)?,
        ..Request::default()
    };
    for line in &lines[1..] {
        let (name, value) = split(line, b":").ok_or("a field has no colon")?;
        let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        if name.is_empty() || !name.iter().all(token) {
            return Err("the name of a field is no token".to_owned());
        }
        request.fields.push((text(name)?.to_ascii_lowercase(), trimmed(value).to_vec()));
    }
    Ok(request)
}

fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Reads the body, and returns what follows it.
fn body_of<'b>(request: &mut Request, rest: Text<'b>) -> Result<Text<'b>, String> {
    let lengths: Vec<_> = request.values("content-length").map(<[u8]>::to_vec).collect();
    let encodings: Vec<_> = request.values("transfer-encoding").map(<[u8]>::to_vec).collect();
    match (lengths.as_slice(), encodings.as_slice()) {
        ([], []) => {
            request.whole = true;
            Ok(rest)
        }
        ([length], []) => {
            let length: u64 = text(length)?.parse().map_err(|_| "a length is no number")?;
            let there = usize::try_from(length).map_or(rest.len(), |length| length.min(rest.len()));
            request.body = rest[..there].to_vec();
            request.whole = there as u64 == length;
            Ok(&rest[there..])
        }
        ([], [encoding]) if encoding.eq_ignore_ascii_case(b"chunked") => chunks(request, rest),
        _ => Err("the framing is ambiguous".to_owned()),
    }
}

/// Reads a chunked body to its end, and returns what follows it, or `None` if it is cut off.
pub fn chunked<'b>(bytes: Text<'b>, body: &mut Vec<u8>) -> Option<Text<'b>> {
    let mut message = Request::default();
    let rest = chunks(&mut message, bytes).unwrap_or_else(|why| panic!("{why}"));
    body.append(&mut message.body);
    message.whole.then_some(rest)
}

fn chunks<'b>(request: &mut Request, mut rest: Text<'b>) -> Result<Text<'b>, String> {
    loop {
        let Some((line, after)) = split(rest, b"\r\n") else { return Ok(b"") };
        let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let size = text(trimmed(size))?;
        let size =
            u64::from_str_radix(&size, 16).map_err(|_| "the size of a chunk is no number")?;
        if size == 0 {
            return trailers(request, after);
        }
        let there = usize::try_from(size).map_or(after.len(), |size| size.min(after.len()));
        request.body.extend_from_slice(&after[..there]);
        let end = &after[there..];
        if end.len() < 2 {
            return Ok(b"");
        }
        rest = end.strip_prefix(b"\r\n").ok_or("a chunk is longer than its size")?;
    }
}

fn trailers<'b>(request: &mut Request, mut rest: Text<'b>) -> Result<Text<'b>, String> {
    while let Some((line, after)) = split(rest, b"\r\n") {
        rest = after;
        if line.is_empty() {
            request.whole = true;
            return Ok(rest);
        }
    }
    Ok(b"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_one_after_the_other() {
        let text = b"\r\nPOST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nhiPOST /b HTTP/1.1\r\n\
            Transfer-Encoding: chunked\r\n\r\n\
                     2;x\r\nhi\r\n1\r\n!\r\n0\r\nT: u\r\n\r\nGET /c HTTP/1.1\r\nA:  b \r\n\r\n";
        let read = requests(text).unwrap();
        let short: Vec<_> =
            read.iter().map(|one| (one.target.as_str(), one.body.as_slice(), one.whole)).collect();
        assert_eq!(
            short,
            [("/a", b"hi".as_slice(), true), ("/b", b"hi!", true), ("/c", b"", true)]
        );
        assert_eq!(read[2].values("a").collect::<Vec<_>>(), [b"b"]);
        assert!(!requests(&text[..42]).unwrap().last().unwrap().whole);
        for bad in [
            "GET /\r\n\r\n",
            "GET / HTTP/1.1\r\nA : b\r\n\r\n",
            "GET / HTTP/1.1\r\nA\nB: c\r\n\r\n",
            "GET / HTTP/1.1\r\n",
        ] {
            assert!(requests(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
