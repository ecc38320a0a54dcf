//! An HTTP/1.1 connection to a whole gateway: it ends in time, and every answer is well-formed, has
//! a request id, and is never a fault of the server.

use std::{sync::LazyLock, time::Duration};

use outrider_gateway::fuzzed::Connections;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    time::sleep,
};

use crate::{http1, input::Input, runtime};

/// The client closes its side after its last byte. Otherwise it waits.
const ENDS: u8 = 0;
/// The client pauses for half a second between the pieces.
const DRIPS: u8 = 1;

/// A connection ends within this time after the last byte of the client. The longest are an upload
/// (60 s and 30 s) and an idle connection (75 s).
const LONGEST: Duration = Duration::from_secs(300);

static GATEWAY: LazyLock<Connections> = LazyLock::new(crate::roles::gateway);

/// Takes the bytes of a client.
pub fn run(data: &[u8]) {
    let input = Input::of(data);
    let pieces: Vec<Vec<u8>> = input.pieces().map(<[u8]>::to_vec).collect();
    let pause =
        if input.has(DRIPS) { Duration::from_millis(500) } else { Duration::from_millis(1) };
    let longest = LONGEST + pause * u32::try_from(pieces.len()).unwrap_or(u32::MAX);
    let text = runtime::run(longest, connection(pieces, pause, input.has(ENDS)));
    // The preface of HTTP/2.
    if !input.bytes.starts_with(b"PRI * HTTP/2.0") {
        answers(&input, &text);
    }
}

async fn connection(pieces: Vec<Vec<u8>>, pause: Duration, ends: bool) -> Vec<u8> {
    let (near, far) = duplex(64 * 1024);
    let serving = tokio::spawn(GATEWAY.serve(far));
    let (mut reader, mut writer) = tokio::io::split(near);
    let writing = async {
        for piece in pieces {
            // It may have been refused.
            if writer.write_all(&piece).await.is_err() {
                return;
            }
            sleep(pause).await;
        }
        if ends {
            let _ = writer.shutdown().await;
        }
    };
    let mut text = Vec::new();
    let (_, _) = tokio::join!(writing, reader.read_to_end(&mut text));
    serving.await.expect("no task panics");
    text
}

/// Asserts what must hold of every answer.
fn answers(input: &Input, mut text: &[u8]) {
    // Compare with the requests as the plain reader reads them. Bytes that are no request are
    // answered, and end the connection.
    let (requests, _) = http1::begin(&input.bytes);
    let asks_for_time = [b"request-timeout".as_slice(), b"grpc-timeout"]
        .iter()
        .any(|name| contains(&input.bytes, name));
    let mut count = 0;
    while !text.is_empty() {
        let head = requests.get(count).is_some_and(|request| request.method == "HEAD");
        let Some((answer, rest)) = answer(text, head) else { return };
        text = rest;
        if answer.status / 100 == 1 {
            assert_eq!(answer.status, 100, "an interim answer");
            continue;
        }
        count += 1;
        // A client that sets a deadline may be told that it passed.
        let fault = answer.status / 100 == 5 && !(answer.status == 504 && asks_for_time);
        assert!(!fault, "{}: {}", answer.status, String::from_utf8_lossy(&answer.body));
        assert!(answer.has_id, "an answer without a request id");
        if answer.is_json && answer.status >= 400 && !head {
            let body: Value = serde_json::from_slice(&answer.body).expect("an error is JSON");
            assert_eq!(body["error"]["code"], answer.status);
            assert!(body["error"]["reason"].is_string());
        }
    }
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word))
}

struct Answer {
    status: u16,
    has_id: bool,
    is_json: bool,
    body: Vec<u8>,
}

/// Returns the first answer and the bytes after it, or `None` if it is cut off.
fn answer(text: &[u8], head: bool) -> Option<(Answer, &[u8])> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Response::new(&mut fields);
    let length = match parsed
        .parse(text)
        .unwrap_or_else(|error| panic!("{error} in {:?}", String::from_utf8_lossy(text)))
    {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return None,
    };
    let field = |name: &str| {
        parsed
            .headers
            .iter()
            .find(|field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
    };
    let status = parsed.code.expect("a whole head has a status");
    let mut answer = Answer {
        status,
        has_id: field("x-request-id").is_some(),
        is_json: field("content-type").is_some_and(|value| value.starts_with(b"application/json")),
        body: Vec::new(),
    };
    let rest = &text[length..];
    // A HEAD request that is refused before its method is known gets an answer with a body, which
    // is the last one.
    let head =
        head && (rest.is_empty() || rest.starts_with(b"HTTP/1.") || status != 400 && status != 431);
    if head || status / 100 == 1 || status == 204 || status == 304 {
        return Some((answer, rest));
    }
    if let Some(length) = field("content-length") {
        let length: usize =
            std::str::from_utf8(length).ok()?.parse().expect("a length is a number");
        let (body, rest) = rest.split_at_checked(length)?;
        answer.body = body.to_vec();
        return Some((answer, rest));
    }
    if field("transfer-encoding").is_some_and(|value| value == b"chunked") {
        let rest = http1::chunked(rest, &mut answer.body)?;
        return Some((answer, rest));
    }
    answer.body = rest.to_vec();
    Some((answer, &[]))
}
