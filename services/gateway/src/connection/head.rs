//! Heads of HTTP/1.1 requests, checked before hyper sees them, and the errors that clients get for
//! them.

use std::mem::MaybeUninit;

use http::{HeaderMap, Uri};
use httparse::{ParserConfig, Request};
use outrider_model::{Error, Reason};

use crate::Options;

/// The smallest buffer that hyper accepts for a head.
const MIN_BYTES: usize = 8 * 1024;
/// Header fields that are parsed without an allocation. Clients usually send fewer.
const FEW_FIELDS: usize = 128;
/// The longest address that the `http` crate accepts.
const MAX_URI_BYTES: usize = u16::MAX as usize - 1;

/// How large a head may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// In bytes, including the request line.
    pub(crate) bytes: usize,
    /// Number of header fields.
    pub(crate) fields: usize,
}

impl Limits {
    pub(crate) fn of(options: &Options) -> Self {
        Self { bytes: options.max_header_bytes.max(MIN_BYTES), fields: options.max_headers }
    }
}

/// Why a request is refused because of its head or its framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The request is not HTTP, with what is wrong.
    Malformed(&'static str),
    /// The head is over its limit.
    HeadersTooLarge,
    /// There are more header fields than the limit.
    TooManyHeaders,
    /// The address is longer than any limit.
    UriTooLong,
}

impl Fault {
    /// Returns the error for the client.
    pub(crate) fn error(self, options: &Options) -> Error {
        let limits = Limits::of(options);
        match self {
            Self::Malformed(what) => Error::new(
                Reason::MalformedRequest,
                format!("the request is not well-formed HTTP: {what}"),
            ),
            Self::HeadersTooLarge => Error::new(
                Reason::HeadersTooLarge,
                format!("the head of the request is over {} bytes", limits.bytes),
            ),
            Self::TooManyHeaders => Error::new(
                Reason::HeadersTooLarge,
                format!("the request has more than {} header fields", limits.fields),
            ),
            Self::UriTooLong => Error::new(
                Reason::UriTooLong,
                format!("path and query are over {} bytes", options.max_uri_bytes),
            ),
        }
    }
}

/// Checks a complete head with the parser and the rules of hyper.
pub(crate) fn check(head: &[u8], limits: &Limits) -> Result<(), Fault> {
    if head.len() > limits.bytes {
        return Err(Fault::HeadersTooLarge);
    }
    let mut request = Request::new(&mut []);
    let mut few = [const { MaybeUninit::uninit() }; FEW_FIELDS];
    let mut many = Vec::new();
    let outcome = if limits.fields <= FEW_FIELDS {
        ParserConfig::default().parse_request_with_uninit_headers(
            &mut request,
            head,
            &mut few[..limits.fields],
        )
    } else {
        many.resize_with(limits.fields, MaybeUninit::uninit);
        ParserConfig::default().parse_request_with_uninit_headers(&mut request, head, &mut many)
    };
    match outcome {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(Fault::Malformed("the head does not end")),
        Err(error) => return Err(fault(error)),
    }
    check_address(request.path.unwrap_or_default())?;
    // httparse accepts bytes that the `http` crate does not.
    let is_value = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    if !request.headers.iter().all(|field| field.value.iter().all(is_value)) {
        return Err(fault(httparse::Error::HeaderValue));
    }
    let is_old = request.version == Some(0);
    if is_old
        && request.headers.iter().any(|field| field.name.eq_ignore_ascii_case("transfer-encoding"))
    {
        return Err(Fault::Malformed("HTTP/1.0 has no Transfer-Encoding"));
    }
    Ok(())
}

fn fault(error: httparse::Error) -> Fault {
    match error {
        httparse::Error::TooManyHeaders => Fault::TooManyHeaders,
        httparse::Error::HeaderName => {
            Fault::Malformed("the name of a header field has invalid characters")
        }
        httparse::Error::HeaderValue => {
            Fault::Malformed("the value of a header field has invalid characters")
        }
        httparse::Error::Version => Fault::Malformed("the version must be HTTP/1.1 or HTTP/1.0"),
        httparse::Error::NewLine | httparse::Error::Status | httparse::Error::Token => {
            Fault::Malformed("the request line must have a method, an address and a version")
        }
    }
}

/// Refuses an invalid address. The quick check avoids the parser in most cases.
fn check_address(address: &str) -> Result<(), Fault> {
    if address.len() > MAX_URI_BYTES {
        return Err(Fault::UriTooLong);
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:?&=%,+@!$'()*;".contains(&byte);
    if address.starts_with('/') && address.bytes().all(plain) {
        return Ok(());
    }
    address.parse::<Uri>().map(drop).map_err(|_| Fault::Malformed("the address is not valid"))
}

/// Returns the size of the HTTP/2 header fields (RFC 9113, section 6.5.2), without pseudo-header
/// fields.
pub(crate) fn list_size(headers: &HeaderMap) -> usize {
    const OVERHEAD: usize = 32;
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + OVERHEAD).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(head: &str) -> Result<(), Fault> {
        check(head.as_bytes(), &Limits { bytes: 8 * 1024, fields: 2 })
    }

    #[test]
    fn heads_are_judged_as_hyper_judges_them() {
        assert_eq!(checked("GET /a?b#c HTTP/1.1\r\nA: \u{e9}\r\n\r\n"), Ok(()));
        assert_eq!(checked("OPTIONS * HTTP/1.1\r\n\r\n"), Ok(()));
        assert_eq!(checked("CONNECT a:1 HTTP/1.1\r\n\r\n"), Ok(()));
        assert_eq!(
            checked("GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n"),
            Err(Fault::TooManyHeaders)
        );
        assert_eq!(
            checked(&format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(8 * 1024))),
            Err(Fault::HeadersTooLarge)
        );
        for bad in [
            "GET / HTTP/1.1\r\nA: \u{7f}",
            "GET  / HTTP/1.1",
            "GET a/b HTTP/1.1",
            "GET /<> HTTP/1.1 x",
            "G\u{e9}T / HTTP/1.1",
            "GET / HTTP/9.9",
            "PRI * HTTP/2.0",
        ] {
            assert!(
                matches!(checked(&format!("{bad}\r\n\r\n")), Err(Fault::Malformed(_))),
                "{bad}"
            );
        }
        let large = Limits { bytes: 200 * 1024, fields: 500 };
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(500));
        assert_eq!(check(many.as_bytes(), &large), Ok(()));
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000));
        assert_eq!(check(long.as_bytes(), &large), Err(Fault::UriTooLong));
    }

    #[test]
    fn faults_name_the_limit() {
        let options = Options { max_headers: 7, max_header_bytes: 9_000, ..Options::default() };
        for (fault, reason, number) in [
            (Fault::TooManyHeaders, Reason::HeadersTooLarge, "7"),
            (Fault::HeadersTooLarge, Reason::HeadersTooLarge, "9000"),
            (Fault::UriTooLong, Reason::UriTooLong, "8192"),
        ] {
            let error = fault.error(&options);
            assert!(error.reason == reason && error.message.contains(number), "{error}");
        }
    }
}
