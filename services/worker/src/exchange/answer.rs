//! Reads responses, and keeps the recorded part.

use std::time::Duration;

use http::{HeaderMap, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::answer_bounds::AnswerBounds;

/// The recorded part of a response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether the body was longer than the recorded part, or broke off.
    pub(crate) truncated: bool,
    pub(crate) end: End,
}

impl Answer {
    /// Returns a response of which only the status arrived.
    pub(crate) fn of_status(status: u16, end: End) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), truncated: true, end }
    }

    /// Returns how long the endpoint says that it keeps the connection (`Keep-Alive: timeout=5,
    /// max=100`).
    pub(crate) fn keep_alive(&self) -> Option<Duration> {
        let (_, value) = self.headers.iter().find(|(name, _)| name == "keep-alive")?;
        value.split(',').find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            let seconds = value
                .trim()
                .parse()
                .ok()
                .filter(|_| name.trim().eq_ignore_ascii_case("timeout"))?;
            Some(Duration::from_secs(seconds))
        })
    }
}

/// How reading the body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The body was read completely. The connection can be used again.
    Whole,
    /// The body was longer than the limit, or broke off.
    Dropped,
    /// The deadline passed.
    TimedOut,
}

/// Reads a response after its head, until the body ends, a bound is reached or the deadline passes.
/// The status decides the outcome of the attempt, so nothing here can fail. `fields` contains the
/// recorded fields of a head that was rewritten for the HTTP library.
pub(crate) async fn read(
    response: Response<Incoming>,
    fields: Option<Vec<(String, String)>>,
    bounds: AnswerBounds,
    deadline: Instant,
) -> Answer {
    let (head, body) = response.into_parts();
    let mut kept = KeptBody { body: Vec::new(), read: 0, bounds };
    let end = timeout_at(deadline, kept.read(body)).await.unwrap_or(End::TimedOut);
    Answer {
        status: head.status.as_u16(),
        headers: fields.unwrap_or_else(|| keep_headers(&head.headers, bounds)),
        truncated: end != End::Whole || kept.read > kept.body.len(),
        body: kept.body,
        end,
    }
}

struct KeptBody {
    body: Vec<u8>,
    read: usize,
    bounds: AnswerBounds,
}

impl KeptBody {
    async fn read(&mut self, mut body: Incoming) -> End {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return End::Dropped };
            // Trailers are not recorded.
            let Some(data) = frame.data_ref() else { continue };
            let room = self.bounds.kept_bytes - self.body.len();
            self.body.extend_from_slice(&data[..data.len().min(room)]);
            self.read = self.read.saturating_add(data.len());
            if self.read > self.bounds.read_bytes {
                return End::Dropped;
            }
        }
        End::Whole
    }
}

/// Returns the headers that fit the bounds.
fn keep_headers(headers: &HeaderMap, bounds: AnswerBounds) -> Vec<(String, String)> {
    let mut room = bounds.header_bytes;
    let mut kept = Vec::with_capacity(headers.len().min(bounds.headers));
    for (name, value) in headers {
        if kept.len() == bounds.headers {
            break;
        }
        let value = String::from_utf8_lossy(value.as_bytes());
        if let Some(left) = room.checked_sub(name.as_str().len() + value.len()) {
            room = left;
            kept.push((name.as_str().to_owned(), value.into_owned()));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_time_that_a_connection_is_kept_is_read() {
        let keep_alive = |value: &str| {
            let headers = vec![("keep-alive".to_owned(), value.to_owned())];
            Answer { headers, ..Answer::of_status(200, End::Whole) }
                .keep_alive()
                .map(|time| time.as_secs())
        };
        for (value, seconds) in [
            ("timeout=5", Some(5)),
            ("max=9, Timeout = 0", Some(0)),
            ("timeout=x", None),
            ("timeout=-1", None),
            ("", None),
        ] {
            assert_eq!(keep_alive(value), seconds, "{value}");
        }
        assert_eq!(Answer::of_status(200, End::Whole).keep_alive(), None);
    }

    #[test]
    fn headers_are_bounded_in_number_and_bytes_and_lossy() {
        let bounds = AnswerBounds { kept_bytes: 1, read_bytes: 1, headers: 2, header_bytes: 20 };
        let mut headers = HeaderMap::new();
        headers.insert("x-a", HeaderValue::from_bytes(b"\xff").unwrap());
        headers.insert("x-b", HeaderValue::from_static("b"));
        headers.insert("x-c", HeaderValue::from_static("c"));
        let kept = keep_headers(&headers, bounds);
        assert_eq!(kept.len(), 2);
        assert_eq!(kept[0], ("x-a".to_owned(), "\u{fffd}".to_owned()));
        let mut headers = HeaderMap::new();
        headers.insert("x-long", HeaderValue::from_static("aaaaaaaaaaaaaaa"));
        assert!(keep_headers(&headers, bounds).is_empty());
        headers.insert("x-d", HeaderValue::from_static("d"));
        assert_eq!(keep_headers(&headers, bounds).len(), 1, "one that does not fit is passed over");
    }
}
