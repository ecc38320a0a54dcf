//! gRPC requests: forwarded as they are, to public methods only.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version, header::CONTENT_TYPE, request::Parts};
use outrider_model::{Error, Reason, Scope};
use outrider_rpc::{Holder, methods};
use prost_reflect::MethodDescriptor;
use tonic::body::Body;
use tower::{Service, ServiceExt};

use crate::{Shared, body, call, client_stream, deadline, meter::Meter, unsent};

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
    pub(crate) fn of<'m>(methods: impl IntoIterator<Item = &'m MethodDescriptor>) -> Self {
        let entry = |method: &MethodDescriptor| {
            let path = methods::path(method);
            let package = method.parent_service().package_name().to_owned();
            let method = Method {
                path: path.clone(),
                package,
                scope: methods::required_scope(&path),
                client_streams: method.is_client_streaming(),
                server_streams: method.is_server_streaming(),
                meters: ["grpc", "grpc-web"].map(|protocol| {
                    let streams = method.is_client_streaming() || method.is_server_streaming();
                    Arc::new(Meter::new(protocol, "POST", &path, streams))
                }),
            };
            (path, method)
        };
        Self(methods.into_iter().map(entry).collect())
    }

    pub(crate) fn find(&self, path: &str) -> Result<&Method, Error> {
        self.0.get(path).ok_or_else(|| Error::new(Reason::UnknownMethod, "no public method of that name"))
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

/// Whether a request speaks gRPC: `application/grpc`, with or without a suffix.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).map(|value| value.as_bytes()).unwrap_or_default();
    let rest = media_type.strip_prefix(b"application/grpc".as_slice());
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'-')))
}

/// Forwards a request to the role of its method.
///
/// A request of one message is bounded as a whole, and each message of a client's stream. An answer that is no stream is read here,
/// however slowly the client takes it: answers to others are on the same connection from the role.
pub(crate) async fn answer<B>(shared: &Shared, method: &Method, parts: Parts, incoming: B) -> Result<Response<Body>, Error>
where
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
{
    if parts.version != Version::HTTP_2 {
        return Err(Error::new(Reason::MalformedRequest, "gRPC needs HTTP/2"));
    }
    let mut backend = shared.backend(&method.package).ok_or_else(|| Error::internal("the method has no role"))?;
    let holder = Holder::of_request(&parts.extensions);
    if method.client_streams {
        let (body, ended) = client_stream::watched(shared, holder, incoming);
        let Ok(ready) = backend.ready().await;
        let Ok(answer) = ready.call(request(method, parts, Body::new(body))?).await;
        return Ok(client_stream::told(answer, ended));
    }
    let (body, cut) = body::metered(shared, &parts, incoming)?;
    let Ok(ready) = backend.ready().await;
    let Ok(answer) = ready.call(request(method, parts, Body::new(body))?).await;
    match cut.why() {
        Some(error) => Err(error),
        None if method.server_streams => Ok(answer),
        None => whole(shared, holder, answer).await,
    }
}

/// The answer, once all of it is there.
async fn whole(shared: &Shared, holder: Holder, answer: Response<Body>) -> Result<Response<Body>, Error> {
    // An error in the headers has no body.
    if answer.headers().contains_key("grpc-status") {
        return Ok(answer);
    }
    let (parts, body) = answer.into_parts();
    let (data, trailers) = call::read(body, shared.options.max_answer_bytes).await?;
    let trailers = trailers.ok_or_else(|| Error::unavailable("a server that is needed broke off its answer"))?;
    Ok(Response::from_parts(parts, unsent::message(shared, holder, data, trailers)?))
}

/// The request with no more of its address than the path: the rest is the client's view of this server.
fn request(method: &Method, mut parts: Parts, body: Body) -> Result<Request<Body>, Error> {
    // Our own clock watches it. A channel's would cut at the same moment, and say that the role does not answer.
    parts.headers.remove(deadline::GRPC);
    parts.uri = method.path.parse().map_err(|_| Error::internal("the method has no path"))?;
    Ok(Request::from_parts(parts, body))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn grpc_is_told_by_its_media_type() {
        let grpc = |text: &'static str| is_grpc(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(text))]));
        for text in ["application/grpc", "application/grpc+proto", "application/grpc;x", "application/grpc-web"] {
            assert!(grpc(text), "{text}");
        }
        for text in ["application/json", "application/grpcx", ""] {
            assert!(!grpc(text), "{text}");
        }
    }
}
