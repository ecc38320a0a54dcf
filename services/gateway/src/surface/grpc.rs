//! gRPC requests: forwarded unchanged, to public methods only.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, Method as HttpMethod, Request, Response, Version,
    header::{CONTENT_TYPE, TE},
    request::Parts,
};
use outrider_model::{Error, Reason};
use outrider_shares::Holder;
use tonic::body::Body;
use tower::{Service, ServiceExt};

use crate::{
    exchange::{
        Shared,
        answer::Refusal,
        body::{self, Broken},
        call, client_stream,
        fault::fault,
        unsent,
    },
    route::Method,
    surface::Surfaces,
};

/// How messages are compressed, and which compressions are accepted.
const ENCODINGS: [HeaderName; 2] =
    [HeaderName::from_static("grpc-encoding"), HeaderName::from_static("grpc-accept-encoding")];

/// The media type of gRPC, and the prefix of all related media types.
const MEDIA_TYPE: &str = "application/grpc";

/// The protocol of a request whose content type begins with `application/grpc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// gRPC.
    Grpc,
    /// gRPC-web, as bytes or as base64.
    Web {
        /// Whether it is base64.
        text: bool,
    },
    /// gRPC or gRPC-web with another or an unknown encoding of messages.
    Unknown {
        /// Whether it is gRPC-web.
        web: bool,
    },
}

impl Dialect {
    /// Returns the dialect of a request, or `None` if it is not gRPC. Media types are compared
    /// without case, and parameters are ignored.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let given = headers.get(CONTENT_TYPE)?.as_bytes();
        let essence = given.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        if essence.len() < MEDIA_TYPE.len()
            || !essence[..MEDIA_TYPE.len()].eq_ignore_ascii_case(MEDIA_TYPE.as_bytes())
        {
            return None;
        }
        let subtype = essence[MEDIA_TYPE.len()..].to_ascii_lowercase();
        Some(match subtype.as_slice() {
            b"" | b"+proto" => Self::Grpc,
            b"-web" | b"-web+proto" => Self::Web { text: false },
            b"-web-text" | b"-web-text+proto" => Self::Web { text: true },
            [b'+' | b'-', ..] => Self::Unknown { web: subtype.starts_with(b"-web") },
            // Another media type with the same prefix.
            _ => return None,
        })
    }

    /// Returns the name of the protocol in metrics.
    pub(crate) fn protocol(self) -> &'static str {
        if self.is_web() { "grpc-web" } else { "grpc" }
    }

    pub(crate) fn is_web(self) -> bool {
        matches!(self, Self::Web { .. } | Self::Unknown { web: true })
    }
}

/// Refuses heads that the gRPC protocol forbids: methods other than POST, unknown encodings, and
/// HTTP/1.1. The HTTP status of the answer is an error too, so that clients that do not speak gRPC
/// do not take it for a success.
pub(crate) fn check_head(
    dialect: Dialect,
    http_method: &HttpMethod,
    version: Version,
) -> Result<(), Refusal> {
    if http_method != HttpMethod::POST {
        let error = Error::new(Reason::MethodNotAllowed, "gRPC requests must use POST");
        return Err(Refusal { allow: Some(HttpMethod::POST.to_string()), ..error.into() });
    }
    if matches!(dialect, Dialect::Unknown { .. }) {
        let message = "gRPC must have the content type application/grpc, \
            application/grpc-web or application/grpc-web-text, each with or without +proto";
        return Err(Error::new(Reason::UnsupportedMediaType, message).into());
    }
    if dialect == Dialect::Grpc && version != Version::HTTP_2 {
        return Err(Error::new(Reason::MalformedRequest, "gRPC requires HTTP/2").into());
    }
    Ok(())
}

/// Forwards a request to the role that serves its method.
///
/// A request of one message is limited as a whole; in a client stream, each message is limited. An
/// answer that is not a stream is read here at once, however slowly the client takes it, because
/// answers to other clients use the same connection from the role.
pub(crate) async fn answer<B>(
    surfaces: &Surfaces,
    method: &Method,
    parts: Parts,
    incoming: B,
) -> Result<Response<Body>, Error>
where
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Unpin
        + 'static,
{
    let shared = &surfaces.shared;
    let mut backend = surfaces
        .backend(&method.package)
        .ok_or_else(|| Error::internal("the method has no role"))?;
    let holder = Holder::of_request(&parts.extensions);
    if method.client_streams {
        let (body, ended) = client_stream::watched(shared, holder, incoming);
        let Ok(ready) = backend.ready().await;
        let Ok(answer) = ready.call(request(method, parts, Body::new(body))?).await;
        return Ok(client_stream::with_reason(answer, ended));
    }
    let (body, cut) = body::metered(shared, &method.path, &parts, incoming)?;
    let Ok(ready) = backend.ready().await;
    let Ok(answer) = ready.call(request(method, parts, Body::new(body))?).await;
    match cut.why() {
        Some(Broken::Gone) => body::gone().await,
        Some(Broken::Refused(error)) => Err(error),
        None if method.server_streams => Ok(answer),
        None => whole(shared, holder, answer).await,
    }
}

/// Reads the complete answer.
async fn whole(
    shared: &Shared,
    holder: Holder,
    answer: Response<Body>,
) -> Result<Response<Body>, Error> {
    // An error in the headers has no body.
    if answer.headers().contains_key("grpc-status") {
        return Ok(answer);
    }
    let (parts, body) = answer.into_parts();
    let (data, trailers) = call::read(body, shared.given.max_answer_bytes).await?;
    let trailers = trailers
        .ok_or_else(|| Error::unavailable("a server that is needed broke off its answer"))?;
    Ok(Response::from_parts(parts, unsent::message(shared, holder, data, trailers)?))
}

/// Builds the request for the role: only the path of the address, and only the headers that roles
/// read. The rest is the client's view of this server, and as long as this server permits. The
/// client's deadline is left out: the gateway enforces it, and a channel would cut the call at the
/// same moment and report that the role does not answer.
fn request(method: &Method, mut parts: Parts, body: Body) -> Result<Request<Body>, Error> {
    let mut headers = call::metadata(&parts.headers);
    for name in [CONTENT_TYPE, TE].into_iter().chain(ENCODINGS) {
        headers.extend(parts.headers.get(&name).map(|value| (name, value.clone())));
    }
    parts.headers = headers;
    parts.uri = method.path.parse().map_err(fault("the method has no path"))?;
    Ok(Request::from_parts(parts, body))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn grpc_is_recognized_by_its_media_type() {
        let of = |text: &'static str| {
            Dialect::of(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(text))]))
        };
        for text in [
            "application/grpc",
            "application/grpc+proto",
            "Application/GRPC+Proto",
            "application/grpc ; charset=utf-8",
        ] {
            assert_eq!(of(text), Some(Dialect::Grpc), "{text}");
        }
        for text in ["application/grpc-web", "application/grpc-WEB+proto;x=y"] {
            assert_eq!(of(text), Some(Dialect::Web { text: false }), "{text}");
        }
        for text in ["application/grpc-web-text", "application/grpc-web-text+proto"] {
            assert_eq!(of(text), Some(Dialect::Web { text: true }), "{text}");
        }
        for (text, web) in [
            ("application/grpc+json", false),
            ("application/grpc+", false),
            ("application/grpc-foo", false),
            ("application/grpc-web+json", true),
        ] {
            assert_eq!(of(text), Some(Dialect::Unknown { web }), "{text}");
        }
        for text in [
            "application/json",
            "application/grpcx",
            "application/grp",
            "",
            "application/json; a=application/grpc",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn only_posts_of_a_known_encoding_are_grpc() {
        let over = |dialect, method: HttpMethod, version| {
            check_head(dialect, &method, version).map_err(|refusal| refusal.error.reason)
        };
        let reason = |dialect, method| over(dialect, method, Version::HTTP_2);
        assert_eq!(
            over(Dialect::Grpc, HttpMethod::POST, Version::HTTP_11),
            Err(Reason::MalformedRequest)
        );
        assert_eq!(over(Dialect::Web { text: false }, HttpMethod::POST, Version::HTTP_11), Ok(()));
        assert_eq!(reason(Dialect::Grpc, HttpMethod::POST), Ok(()));
        assert_eq!(reason(Dialect::Web { text: true }, HttpMethod::POST), Ok(()));
        for method in [
            HttpMethod::GET,
            HttpMethod::PUT,
            HttpMethod::CONNECT,
            HttpMethod::from_bytes(b"X").unwrap(),
        ] {
            assert_eq!(reason(Dialect::Grpc, method), Err(Reason::MethodNotAllowed));
        }
        assert_eq!(
            reason(Dialect::Unknown { web: false }, HttpMethod::POST),
            Err(Reason::UnsupportedMediaType)
        );
    }
}
