//! CORS: the origins whose pages a browser lets call the API.
//!
//! Browser credentials (cookies) are never permitted. Callers send their API key in a header.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Uri, header};
use outrider_model::text::quoted;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

/// How long a browser may cache the answer to a preflight request. Browsers have their own limits,
/// of up to two hours.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// Why a text in the list of origins is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOrigin {
    /// The text is not made of scheme, host and port.
    #[error(
        "{} is not an origin such as \"https://app.example.com\", nor \"*\"",
        quoted(.0)
    )]
    Malformed(String),
    /// `*` is listed together with other origins, which would have no effect.
    #[error("\"*\" stands alone: it permits every origin")]
    Beside,
}

/// Returns the layer for these origins (`*` for any), or `None` if there are none.
pub(crate) fn layer(origins: &[String]) -> Result<Option<CorsLayer>, InvalidOrigin> {
    let values = origins.iter().map(|origin| value(origin)).collect::<Result<Vec<_>, _>>()?;
    if values.is_empty() {
        return Ok(None);
    }
    let any = values.iter().any(|value| value == "*");
    if any && values.len() > 1 {
        return Err(InvalidOrigin::Beside);
    }
    let layer = CorsLayer::new()
        .allow_origin(if any { AllowOrigin::any() } else { AllowOrigin::list(values) })
        .allow_methods([
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        // gRPC-web metadata can have any name.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([
            HeaderName::from_static("grpc-status"),
            HeaderName::from_static("grpc-message"),
            HeaderName::from_static("grpc-status-details-bin"),
            crate::request_id::HEADER,
            header::RETRY_AFTER,
        ])
        .max_age(MAX_AGE);
    Ok(Some(layer))
}

/// Parses an origin as browsers send it: scheme, host and port, in lower case, with nothing after
/// them.
fn value(origin: &str) -> Result<HeaderValue, InvalidOrigin> {
    let invalid = || InvalidOrigin::Malformed(origin.to_owned());
    let value = HeaderValue::from_str(origin).map_err(|_| invalid())?;
    let exact = origin
        .parse::<Uri>()
        .ok()
        .and_then(|uri| Some(format!("{}://{}", uri.scheme_str()?, uri.authority()?)));
    let usable = exact.is_some_and(|exact| exact == origin && !exact.contains('@'))
        && origin == origin.to_ascii_lowercase();
    if usable || origin == "*" { Ok(value) } else { Err(invalid()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_scheme_host_and_port() {
        for good in ["https://app.example.com", "http://localhost:3000", "http://[::1]:3000", "*"] {
            assert!(layer(&[good.to_owned()]).unwrap().is_some(), "{good}");
        }
        for bad in [
            "",
            "app.example.com",
            "https://a.example/",
            "https://A.example",
            "https://u@a.example",
            "https://*/x",
            "null",
        ] {
            assert_eq!(
                layer(&[bad.to_owned()]).err(),
                Some(InvalidOrigin::Malformed(bad.to_owned())),
                "{bad}"
            );
        }
        assert!(layer(&[]).unwrap().is_none());
        let beside = ["*".to_owned(), "https://app.example.com".to_owned()];
        assert_eq!(layer(&beside).err(), Some(InvalidOrigin::Beside));
    }
}
