//! gRPC requests: forwarded as they are, to public methods only.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, Method as HttpMethod, Request, Response, Version,
    header::{CONTENT_TYPE, TE},
    request::Parts,
};
use outrider_model::{Error, Reason, Scope};
use outrider_rpc::methods::{self, WithoutScope};
use outrider_shares::Holder;
use prost_reflect::MethodDescriptor;
use tonic::body::Body;
use tower::{Service, ServiceExt};

use crate::{
    Shared,
    answer::Refusal,
    body::{self, Broken},
    call, client_stream,
    fault::fault,
    meter::Meter,
    rest, unsent,
};

/// How messages are compressed, and how they may be.
const ENCODINGS: [HeaderName; 2] =
    [HeaderName::from_static("grpc-encoding"), HeaderName::from_static("grpc-accept-encoding")];

/// The media type of gRPC, and what all that are related to it begin with.
const MEDIA_TYPE: &str = "application/grpc";

/// The public methods, and those of the gateway itself, by their paths.
pub(crate) struct Methods(HashMap<String, Method>);

/// A public method.
#[derive(Debug)]
pub(crate) struct Method {
    pub(crate) path: String,
    pub(crate) package: String,
    /// What the caller's key must carry; none for methods of the gateway itself.
    pub(crate) scope: Option<Scope>,
    pub(crate) client_streams: bool,
    server_streams: bool,
    meters: [Arc<Meter>; 2],
}

impl Methods {
    /// Fails for one that names no scope, unless it is known to need no key.
    pub(crate) fn of<'m>(
        methods: impl IntoIterator<Item = &'m MethodDescriptor>,
    ) -> Result<Self, WithoutScope> {
        let entry = |method: &MethodDescriptor| {
            let path = methods::path(method);
            let package = method.parent_service().package_name().to_owned();
            let method = Method {
                path: path.clone(),
                package,
                scope: methods::scope_or_open(&path)?,
                client_streams: method.is_client_streaming(),
                server_streams: method.is_server_streaming(),
                meters: ["grpc", "grpc-web"].map(|protocol| {
                    let streams = method.is_client_streaming() || method.is_server_streaming();
                    Arc::new(Meter::new(protocol, "POST", &path, streams))
                }),
            };
            Ok((path, method))
        };
        methods.into_iter().map(entry).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn find(&self, path: &str) -> Result<&Method, Error> {
        self.0
            .get(path)
            .ok_or_else(|| Error::new(Reason::UnknownMethod, "no public method of that name"))
    }
}

impl Method {
    /// Its counters.
    pub(crate) fn meter(&self, from_web: bool) -> &Arc<Meter> {
        &self.meters[usize::from(from_web)]
    }

    /// Whether it has no natural end, and so no deadline of ours.
    pub(crate) fn streams(&self) -> bool {
        self.client_streams || self.server_streams
    }
}

/// What a request speaks whose content type begins with `application/grpc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// gRPC.
    Grpc,
    /// gRPC-web, as bytes or as base64.
    Web {
        /// As base64.
        text: bool,
    },
    /// Another encoding of messages, or none that exists; of gRPC or of gRPC-web.
    Unknown {
        /// Of gRPC-web.
        web: bool,
    },
}

impl Dialect {
    /// The dialect of a request; none when it speaks no gRPC. Media types are compared without
    /// case, and parameters are ignored.
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
            // The name of something else that begins alike.
            _ => return None,
        })
    }

    /// The protocol of its counters.
    pub(crate) fn protocol(self) -> &'static str {
        if self.is_web() { "grpc-web" } else { "grpc" }
    }

    pub(crate) fn is_web(self) -> bool {
        matches!(self, Self::Web { .. } | Self::Unknown { web: true })
    }
}

/// Refuses heads that the gRPC protocol forbids: methods other than POST, unknown encodings, and
/// HTTP/1.1. The answer's HTTP status is an error too, so that clients that do not speak gRPC do
/// not take it for a success.
pub(crate) fn check_head(
    dialect: Dialect,
    http_method: &HttpMethod,
    version: Version,
) -> Result<(), Refusal> {
    if http_method != HttpMethod::POST {
        let error = Error::new(Reason::MethodNotAllowed, "gRPC is sent by POST");
        return Err(Refusal { allow: Some(HttpMethod::POST.to_string()), ..error.into() });
    }
    if matches!(dialect, Dialect::Unknown { .. }) {
        let message = "gRPC is taken as application/grpc, application/grpc-web and application/grpc-web-text, \
                       each with or without +proto";
        return Err(Error::new(Reason::UnsupportedMediaType, message).into());
    }
    if dialect == Dialect::Grpc && version != Version::HTTP_2 {
        return Err(Error::new(Reason::MalformedRequest, "gRPC needs HTTP/2").into());
    }
    Ok(())
}

/// Forwards a request to the role of its method.
///
/// A request of one message is bounded as a whole, and each message of a client's stream. An answer
/// that is no stream is read here, however slowly the client takes it: answers to others are on the
/// same connection from the role.
pub(crate) async fn answer<B>(
    shared: &Shared,
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
    let mut backend =
        shared.backend(&method.package).ok_or_else(|| Error::internal("the method has no role"))?;
    let holder = Holder::of_request(&parts.extensions);
    if method.client_streams {
        let (body, ended) = client_stream::watched(shared, holder, incoming);
        let Ok(ready) = backend.ready().await;
        let Ok(answer) = ready.call(request(method, parts, Body::new(body))?).await;
        return Ok(client_stream::told(answer, ended));
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

/// The answer, once all of it is there.
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

/// The request with no more of its address than the path, and no more of its head than roles read:
/// the rest is the client's view of this server, and as long as this server permits. The client's
/// deadline is not in it: our own clock watches it, and a channel's would cut at the same moment,
/// and say that the role does not answer.
fn request(method: &Method, mut parts: Parts, body: Body) -> Result<Request<Body>, Error> {
    let mut headers = rest::metadata(&parts.headers);
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
    fn grpc_is_told_by_its_media_type() {
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
    fn a_method_without_a_scope_is_not_served() {
        let keys = outrider_proto::DESCRIPTORS
            .get_service_by_name("outrider.internal.v1.KeyService")
            .unwrap();
        let method = keys.methods().next().unwrap();
        let error = Methods::of([&method]).err().unwrap();
        assert_eq!(error, WithoutScope("/outrider.internal.v1.KeyService/ResolveKey".to_owned()));
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
