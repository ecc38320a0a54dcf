//! The id by which a request is found in the logs: the client's, or a new one.

use http::{HeaderMap, HeaderName, HeaderValue};
use outrider_model::limits;
use uuid::Uuid;

/// The header that carries the id in both directions.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Returns the client's id if it is 1 to 128 bytes of visible ASCII, otherwise a new one.
/// Afterwards, the headers have only this id.
pub(crate) fn ensure(headers: &mut HeaderMap) -> HeaderValue {
    let usable = |value: &&HeaderValue| {
        (1..=limits::REQUEST_ID_BYTES).contains(&value.len())
            && value.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    let id = headers.get(HEADER).filter(usable).cloned().unwrap_or_else(generate);
    headers.insert(HEADER, id.clone());
    id
}

fn generate() -> HeaderValue {
    HeaderValue::from_str(&Uuid::now_v7().to_string())
        .unwrap_or_else(|_| HeaderValue::from_static("none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_is_usable_and_replaces_the_rest() {
        let settled = |given: Option<&[u8]>| {
            let mut headers = HeaderMap::new();
            if let Some(given) = given {
                headers.insert(HEADER, HeaderValue::from_bytes(given).unwrap());
            }
            let id = ensure(&mut headers);
            assert_eq!(headers.get(HEADER), Some(&id));
            id
        };
        assert_eq!(settled(Some(b"abc-1")), "abc-1");
        let long = [b'a'; 129];
        assert_eq!(settled(Some(&long[..128])).len(), 128);
        for bad in [Some(&long[..]), Some(b"".as_slice()), Some(b"a b"), Some(b"\xff"), None] {
            assert_eq!(settled(bad).len(), 36, "{bad:?}");
        }
    }
}
