//! Parses the request of a client of the proxy, and builds the response.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use outrider_rpc::{DialError, InternalToken, proxy};

/// A response that opens no tunnel. The connection is closed after it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    error: Option<&'static str>,
    rule: Option<String>,
    cause: Option<String>,
    text: String,
}

impl Refusal {
    fn malformed(text: &str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            error: None,
            rule: None,
            cause: None,
            text: text.to_owned(),
        }
    }

    /// The client did not present the token (RFC 9110, 15.5.8).
    pub(crate) fn unknown_client() -> Self {
        let text = "the egress serves its own workers only".to_owned();
        Self {
            status: StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            error: None,
            rule: None,
            cause: None,
            text,
        }
    }

    /// The maximum number of tunnels is open.
    pub(crate) fn full() -> Self {
        DialError::EgressUnavailable.into()
    }

    pub(crate) fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(format!("{}\n", self.text)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static("CONNECT"));
        }
        if self.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            headers.insert(header::PROXY_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(error) = self.error {
            headers.insert(
                HeaderName::from_static(proxy::ERROR_HEADER),
                HeaderValue::from_static(error),
            );
        }
        for (name, value) in [(proxy::RULE_HEADER, self.rule), (proxy::CAUSE_HEADER, self.cause)] {
            if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        response
    }
}

impl From<DialError> for Refusal {
    fn from(error: DialError) -> Self {
        let (text, cause) = (error.to_string(), error.cause());
        let (status, word, rule) = match error {
            DialError::Refused { rule } => (StatusCode::FORBIDDEN, proxy::REFUSED, Some(rule)),
            DialError::NotResolved(_) => (StatusCode::BAD_GATEWAY, proxy::NOT_RESOLVED, None),
            DialError::ConnectFailed(_) => (StatusCode::BAD_GATEWAY, proxy::CONNECT_FAILED, None),
            DialError::EgressUnavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, proxy::UNAVAILABLE, None)
            }
        };
        Self { status, error: Some(word), rule, cause, text }
    }
}

/// The response before the tunnel. Hyper adds neither a length nor an encoding to it.
pub(crate) fn established() -> Response<Full<Bytes>> {
    Response::new(Full::default())
}

/// Refuses a client that does not present the token, if one is configured.
pub(crate) fn authorize<B>(
    request: &Request<B>,
    token: Option<&InternalToken>,
) -> Result<(), Refusal> {
    let Some(token) = token else { return Ok(()) };
    let given = request
        .headers()
        .get(header::PROXY_AUTHORIZATION)
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    match given.strip_prefix(b"Bearer ") {
        Some(presented) if token.matches(presented) => Ok(()),
        _ => Err(Refusal::unknown_client()),
    }
}

/// Returns the host (without brackets) and the port of a CONNECT request.
pub(crate) fn target<B>(request: &Request<B>) -> Result<(String, u16), Refusal> {
    if request.method() != Method::CONNECT {
        let text = "only CONNECT is served".to_owned();
        return Err(Refusal {
            status: StatusCode::METHOD_NOT_ALLOWED,
            error: None,
            rule: None,
            cause: None,
            text,
        });
    }
    let uri = request.uri();
    let authority = match (uri.authority(), uri.scheme(), uri.path_and_query()) {
        (Some(authority), None, None) => authority.as_str(),
        _ => return Err(Refusal::malformed("the target must be host:port")),
    };
    let headers = request.headers();
    // A request that could be framed or continued in another way is refused.
    for name in [
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::EXPECT,
        header::TRAILER,
    ] {
        if headers.contains_key(&name) {
            return Err(Refusal::malformed(&format!("CONNECT must not have a {name} header")));
        }
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(Refusal::malformed("CONNECT must have exactly one Host header"));
    };
    if !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()) {
        return Err(Refusal::malformed("the Host header must repeat the target"));
    }
    split(authority)
}

fn split(authority: &str) -> Result<(String, u16), Refusal> {
    let (host, port) = authority
        .rsplit_once(':')
        .ok_or_else(|| Refusal::malformed("the target must name a port"))?;
    let digits = !port.starts_with('0') && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port
        .parse()
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| Refusal::malformed("the port must be from 1 to 65535"))?;
    let host = if host.starts_with('[') {
        let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        inner
            .filter(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
            .ok_or_else(|| Refusal::malformed("the address is malformed"))?
    } else {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        Some(host)
            .filter(|host| !host.is_empty() && host.bytes().all(plain))
            .ok_or_else(|| Refusal::malformed("the host is malformed"))?
    };
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_host_and_port_only() {
        let good = |text: &str| split(text).unwrap();
        assert_eq!(good("example.com:443"), ("example.com".into(), 443));
        assert_eq!(good("[2a00::1]:65535"), ("2a00::1".into(), 65535));
        for bad in [
            "example.com",
            "example.com:",
            "example.com:0",
            "example.com:0443",
            "example.com:65536",
            "example.com:+1",
            ":443",
            "2a00::1:443",
            "[2a00::1]",
            "[2a00::1:443",
            "[::1%25lo]:1",
            "[example.com]:1",
            "u@example.com:1",
            "a%41:1",
            "a:b:1",
        ] {
            assert_eq!(split(bad).unwrap_err().status, StatusCode::BAD_REQUEST, "{bad}");
        }
    }

    #[test]
    fn requests_that_are_more_than_a_connect_are_refused() {
        let judge = |method: &str, uri: &str, headers: &[(&str, &str)]| {
            let mut request = Request::builder().method(method).uri(uri);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            target(&request.body(()).unwrap()).map_err(|refusal| refusal.status.as_u16())
        };
        let host = ("host", "example.com:443");
        assert_eq!(judge("CONNECT", "example.com:443", &[host]), Ok(("example.com".into(), 443)));
        assert_eq!(
            judge("CONNECT", "example.com:443", &[("host", "EXAMPLE.com:443")]),
            Ok(("example.com".into(), 443))
        );
        for headers in [
            &[] as &[(&str, &str)],
            &[host, host],
            &[("host", "other.com:443")],
            &[host, ("content-length", "0")],
            &[host, ("transfer-encoding", "chunked")],
            &[host, ("upgrade", "h2c")],
            &[host, ("expect", "100-continue")],
        ] {
            assert_eq!(judge("CONNECT", "example.com:443", headers), Err(400), "{headers:?}");
        }
        assert_eq!(judge("CONNECT", "http://example.com:443/", &[host]), Err(400));
        assert_eq!(judge("CONNECT", "/", &[host]), Err(400));
        assert_eq!(judge("GET", "http://example.com:443/", &[host]), Err(405));
        assert_eq!(judge("connect", "/", &[host]), Err(405));
    }
}
