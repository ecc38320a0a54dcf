//! gzip for JSON answers, if the client accepts it and it is worthwhile.

use std::io::Write;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{
    HeaderMap, HeaderValue, Response,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, VARY},
};
use tonic::body::Body;

use crate::exchange::answer;

/// Up to this size, an answer fits into about one packet, and compression gains nothing.
const WORTH_IT_BYTES: usize = 1024;
/// Compressing a larger answer takes long enough to delay other requests of the thread.
const LONG_BYTES: usize = 256 * 1024;

/// A JSON answer, compressed if the request's headers permit it.
pub(crate) async fn json(text: Vec<u8>, headers: &HeaderMap) -> Response<Body> {
    if text.len() <= WORTH_IT_BYTES {
        return answer::json(text);
    }
    let compressed = if !takes_gzip(headers) {
        None
    } else if text.len() <= LONG_BYTES {
        gzip(&text)
    } else {
        let copy = text.clone();
        tokio::task::spawn_blocking(move || gzip(&copy)).await.ok().flatten()
    };
    encoded(text, compressed)
}

/// An answer with the compressed text if there is one. Caches must know that two variants exist.
pub(crate) fn encoded(
    text: impl Into<Bytes>,
    compressed: Option<impl Into<Bytes>>,
) -> Response<Body> {
    let is_compressed = compressed.is_some();
    let mut answer = answer::json(compressed.map_or_else(|| text.into(), Into::into));
    if is_compressed {
        answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    answer.headers_mut().append(VARY, HeaderValue::from_static("accept-encoding"));
    answer
}

/// Compresses the text with gzip.
pub(crate) fn gzip(text: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).ok()?;
    encoder.finish().ok()
}

/// Returns whether a client accepts gzip (RFC 9110, section 12.5.3), by name or by `*`. A weight of
/// 0 refuses it.
pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let (mut named, mut any) = (None, None);
    for item in values.flat_map(|value| value.split(',')) {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let refused =
            parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0_f32)));
        if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
            named = Some(!refused);
        } else if name == "*" {
            any = Some(!refused);
        }
    }
    named.or(any).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_taken_when_it_is_named_and_not_refused() {
        let takes = |text: &'static str| {
            takes_gzip(&HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(text))]))
        };
        for text in ["gzip", "br, GZIP;q=0.1", "*", "gzip;q=1, *;q=0", "deflate,gzip ; q=0.5"] {
            assert!(takes(text), "{text}");
        }
        for text in ["", "br", "gzip;q=0", "gzip;q=0.0, *", "*;q=0", "gzipped"] {
            assert!(!takes(text), "{text}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
