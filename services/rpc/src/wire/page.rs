//! Page tokens (AIP-158): opaque to callers, and bound to the method and the filters of the list
//! that they continue.
//!
//! A token is neither secret nor signed. It contains the position of an item that the caller has
//! seen, and a request with it passes the same checks of the principal as the first page.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use outrider_model::{
    Error, Page, PageRequest, Reason, Result, limits,
    page::{Cursor, Position},
};
use ring::digest::{Context, SHA256};

/// Version of the token format. Tokens of other versions are refused.
const VERSION: u8 = 1;
const AFTER: u8 = 0;
const BEFORE: u8 = 1;
const HEAD_BYTES: usize = 2;
const BINDING_BYTES: usize = 8;

/// Reads and writes the page tokens of one list. It is created for each request from the name of
/// the method and the texts of its filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pager {
    binding: [u8; BINDING_BYTES],
}

impl Pager {
    /// Binds tokens to a method and its filters, which include the project. Each filter has a fixed
    /// position, and is an empty text if it is absent.
    #[must_use]
    pub fn new(method: &str, filters: &[&str]) -> Self {
        let mut context = Context::new(&SHA256);
        for text in std::iter::once(&method).chain(filters) {
            // The length is included so that no two lists of texts yield the same bytes.
            context.update(&(text.len() as u64).to_be_bytes());
            context.update(text.as_bytes());
        }
        let mut binding = [0; BINDING_BYTES];
        binding.copy_from_slice(&context.finish().as_ref()[..BINDING_BYTES]);
        Self { binding }
    }

    /// Reads `page_size` and `page_token` of a request. Zero means the default size. A size that is
    /// negative or over the limit ([`limits::PAGE_SIZE`]) is a violation of `page_size`. A token of
    /// another list is refused with `InvalidPageToken`.
    pub fn request<P: Position>(&self, page_size: i32, page_token: &str) -> Result<PageRequest<P>> {
        let (default, most) = limits::PAGE_SIZE;
        let size = match u32::try_from(page_size) {
            Ok(0) => default,
            Ok(size) if size <= most => size,
            _ => {
                return Err(Error::field(
                    "page_size",
                    format!("must be 1 to {most}, or 0 for the default of {default}"),
                ));
            }
        };
        let from = if page_token.is_empty() { None } else { Some(self.decode(page_token)?) };
        Ok(PageRequest { size, from })
    }

    /// Returns the tokens of the next and of the previous page, empty if there is no such page.
    #[must_use]
    pub fn tokens<T, P: Position>(&self, page: &Page<T, P>) -> (String, String) {
        let token = |cursor: Option<Cursor<P>>| {
            cursor.map(|cursor| self.encode(cursor)).unwrap_or_default()
        };
        (token(page.next), token(page.previous))
    }

    /// Encodes a cursor as a token.
    #[must_use]
    pub fn encode<P: Position>(&self, cursor: Cursor<P>) -> String {
        let (direction, place) = match cursor {
            Cursor::After(place) => (AFTER, place),
            Cursor::Before(place) => (BEFORE, place),
        };
        let mut bytes = Vec::with_capacity(token_bytes::<P>());
        bytes.extend([VERSION, direction]);
        place.write(&mut bytes);
        bytes.extend(self.binding);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn decode<P: Position>(&self, token: &str) -> Result<Cursor<P>> {
        let refused = |why| Error::new(Reason::InvalidPageToken, why);
        let malformed = || refused("page_token: is not a token from an earlier answer");
        // All tokens of a list have the same length. Longer texts are not decoded.
        let text = Some(token).filter(|token| token.len() <= 2 * token_bytes::<P>());
        let bytes =
            text.and_then(|token| URL_SAFE_NO_PAD.decode(token).ok()).ok_or_else(malformed)?;
        let (head, rest) = bytes.split_at_checked(HEAD_BYTES).ok_or_else(malformed)?;
        let (place, binding) = rest.split_at_checked(P::BYTES).ok_or_else(malformed)?;
        let place =
            P::read(place).filter(|_| binding.len() == BINDING_BYTES).ok_or_else(malformed)?;
        let cursor = match head {
            [VERSION, AFTER] => Cursor::After(place),
            [VERSION, BEFORE] => Cursor::Before(place),
            _ => return Err(malformed()),
        };
        if binding == self.binding {
            Ok(cursor)
        } else {
            Err(refused("page_token: belongs to another list or to other filters"))
        }
    }
}

fn token_bytes<P: Position>() -> usize {
    HEAD_BYTES + P::BYTES + BINDING_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn reason(result: Result<PageRequest>) -> Reason {
        result.expect_err("must be refused").reason
    }

    #[test]
    fn tokens_round_trip_in_both_directions() {
        let pager = Pager::new("ListEndpoints", &["prj_1", "owner"]);
        let page = Page {
            items: vec![()],
            next: Some(Cursor::After(Uuid::from_u128(7))),
            previous: Some(Cursor::Before(Uuid::max())),
        };
        let (next, previous) = pager.tokens(&page);
        assert_eq!(pager.request(10, &next), Ok(PageRequest { size: 10, from: page.next }));
        assert_eq!(pager.request(10, &previous), Ok(PageRequest { size: 10, from: page.previous }));
        let last = Page::<()> { items: Vec::new(), next: None, previous: None };
        assert_eq!(pager.tokens(&last), (String::new(), String::new()));
    }

    #[test]
    fn tokens_of_other_lists_are_refused() {
        let token =
            Pager::new("ListEndpoints", &["prj_1", "ab"]).encode(Cursor::After(Uuid::max()));
        for (method, filters) in [
            ("ListSubscriptions", ["prj_1", "ab"].as_slice()),
            ("ListEndpoints", &["prj_2", "ab"]),
            ("ListEndpoints", &["prj_1", ""]),
            ("ListEndpoints", &["prj_1a", "b"]),
            ("ListEndpoints", &["prj_1", "ab", ""]),
        ] {
            assert_eq!(
                reason(Pager::new(method, filters).request(0, &token)),
                Reason::InvalidPageToken,
                "{method} {filters:?}"
            );
        }
    }

    #[test]
    fn malformed_tokens_are_refused() {
        let pager = Pager::new("m", &[]);
        let good = pager.encode(Cursor::After(Uuid::max()));
        let altered = |index: usize, difference: u8| {
            let mut bytes = URL_SAFE_NO_PAD.decode(&good).unwrap();
            bytes[index] ^= difference;
            URL_SAFE_NO_PAD.encode(bytes)
        };
        let (short, long, huge) = (&good[1..], format!("{good}AAAA"), "A".repeat(1 << 20));
        for token in
            ["?", "é", "AAAA", short, &long, &huge, &altered(0, 3), &altered(1, 2), &altered(25, 1)]
        {
            assert_eq!(reason(pager.request(0, token)), Reason::InvalidPageToken, "{:.40}", token);
        }
    }

    #[test]
    fn sizes_have_a_default_and_a_limit() {
        let pager = Pager::new("m", &[]);
        assert_eq!(pager.request::<Uuid>(0, "").unwrap().size, limits::PAGE_SIZE.0);
        assert_eq!(pager.request::<Uuid>(500, ""), Ok(PageRequest { size: 500, from: None }));
        for size in [-1, 501, i32::MIN, i32::MAX] {
            assert_eq!(
                pager.request::<Uuid>(size, "").unwrap_err().violations[0].field,
                "page_size"
            );
        }
    }
}
