//! One request of either kind: its id, its deadline, its log line, and what happens when it goes
//! wrong.

use std::{convert::Infallible, future::Future, panic::AssertUnwindSafe, sync::Arc};

use bytes::Bytes;
use futures::FutureExt;
use http::{
    HeaderValue, Method as HttpMethod, Request, Response, Version,
    header::{CONNECTION, HOST},
    request::Parts,
};
use hyper::body::Incoming;
use outrider_model::{Error, Reason};
use outrider_rpc::{ConnectionSlot, HoldingBody};
use outrider_shares::Holder;
use tokio::time::Instant;
use tonic::body::Body;

use crate::{
    Shared, admission,
    answer::Refusal,
    deadline::{self, Deadline},
    ending,
    grpc::{self, Dialect},
    head::{self, Fault, Limits},
    meter::Meter,
    ndjson,
    observe::{Observed, Seen},
    request_id, rest,
    route::Found,
    unsent, web,
};

/// Answers a request; whatever happens, there is an answer with a request id.
/// A caller with a good key keeps the place of its connection.
pub(crate) async fn handle(
    shared: &Shared,
    seat: &ConnectionSlot,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let id = request_id::settle(request.headers_mut());
    let mut observed = Observed::begin(&mut request, id.clone());
    let version = request.version();
    let dialect = Dialect::of(request.headers());
    let mut answer = match (vet(shared, &request), dialect) {
        (Err(refusal), dialect) => {
            observed.on(&unrouted(dialect.map_or("rest", Dialect::protocol), request.method()));
            if dialect.is_some() {
                observed.seen.watch(refusal.into_grpc())
            } else {
                refusal.into_json(&id)
            }
        }
        // Boxed: it would make the future of a REST request larger, which is moved more than once.
        (Ok(()), Some(dialect)) => {
            Box::pin(answer_grpc(shared, seat, request, dialect, &mut observed)).await
        }
        (Ok(()), None) => answer_rest(shared, seat, request, &id, &mut observed).await,
    };
    // Connections of HTTP/2 carry other requests, and know no such header.
    if version == Version::HTTP_2 {
        answer.headers_mut().remove(CONNECTION);
    }
    answer.headers_mut().insert(request_id::HEADER, id);
    Ok(observed.answered(answer))
}

/// Refuses a request by its head alone: an address that is too long, and in HTTP/1.1 a host that is
/// missing or given twice, by which another server on the way could have sent it elsewhere (RFC
/// 9112, section 3.2).
fn vet(shared: &Shared, request: &Request<Incoming>) -> Result<(), Refusal> {
    if let Some(fault) = request.extensions().get::<Fault>() {
        return Err(Refusal::closing(fault.error(&shared.options)));
    }
    if request.version() == Version::HTTP_2
        && head::list_size(request.headers()) > Limits::of(&shared.options).bytes
    {
        return Err(Fault::HeadersTooLarge.error(&shared.options).into());
    }
    let limit = shared.options.max_uri_bytes;
    if request.uri().path_and_query().map_or(0, |path| path.as_str().len()) > limit {
        let error =
            Error::new(Reason::UriTooLong, format!("path and query are over {limit} bytes"));
        return Err(Refusal::closing(error));
    }
    if request.version() == Version::HTTP_11 && request.headers().get_all(HOST).iter().count() != 1
    {
        return Err(Refusal::closing(Error::new(
            Reason::MalformedRequest,
            "there must be one Host header",
        )));
    }
    Ok(())
}

const NO_ROUTE: &str = "-";

async fn answer_grpc(
    shared: &Shared,
    seat: &ConnectionSlot,
    mut request: Request<Incoming>,
    dialect: Dialect,
    observed: &mut Observed,
) -> Response<Body> {
    let seen = observed.seen.clone();
    let is_web = dialect.is_web();
    if let Err(refusal) = grpc::check_head(dialect, request.method(), request.version()) {
        observed.on(&unrouted(dialect.protocol(), request.method()));
        let answer = seen.watch(refusal.into_grpc_with_status());
        return if is_web { web::refused(answer) } else { answer };
    }
    let scope = match shared.methods.find(request.uri().path()) {
        Ok(method) => {
            observed.on(method.meter(is_web));
            method.scope
        }
        Err(_) => {
            observed.on(&unrouted(dialect.protocol(), request.method()));
            None
        }
    };
    let deadline =
        Deadline::new(deadline::of_grpc(request.headers()), shared.options.request_timeout);
    observed.client_deadline = deadline.is_of_client();
    if let Err(error) = admission::admit_request(shared, seat, scope, &mut request, &deadline).await
    {
        let (parts, body) = request.into_parts();
        let close = admission::let_go(&shared.options, parts.version, &parts.headers, body);
        let answer = seen.watch(Refusal { close, ..error.into() }.into_grpc());
        return if is_web { web::refused(answer) } else { answer };
    }
    match dialect {
        // Boxed: it would make the future of every request as large.
        Dialect::Web { text } => {
            Box::pin(web::answer(shared, request, text, &deadline, &seen)).await
        }
        _ => call(shared, request, false, &deadline, &seen).await,
    }
}

/// Of requests that lead nowhere: they are few, or cheap to count among what an attacker costs.
fn unrouted(protocol: &'static str, method: &HttpMethod) -> Arc<Meter> {
    Arc::new(Meter::new(protocol, method.as_str(), NO_ROUTE, false))
}

/// Answers a gRPC request, which may have come as gRPC-web.
pub(crate) async fn call<B>(
    shared: &Shared,
    request: Request<B>,
    from_web: bool,
    deadline: &Deadline,
    seen: &Seen,
) -> Response<Body>
where
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Unpin
        + 'static,
{
    let method = match callable(shared, request.uri().path(), from_web, deadline) {
        Ok(method) => method,
        Err(error) => return seen.watch(Refusal::from(error).into_grpc()),
    };
    let (parts, body) = request.into_parts();
    if method.streams() {
        // Boxed: it would make the future of every call as large.
        return seen.watch(Box::pin(stream(shared, method, parts, body, deadline)).await);
    }
    let answer =
        grpc::answer(shared, method, parts, body).map(|answer| answer.map_err(Refusal::from));
    seen.watch(
        in_time(deadline.end(), answer, &method.path).await.unwrap_or_else(Refusal::into_grpc),
    )
}

fn callable<'s>(
    shared: &'s Shared,
    path: &str,
    from_web: bool,
    deadline: &Deadline,
) -> Result<&'s grpc::Method, Error> {
    let method = shared.methods.find(path)?;
    if from_web && method.client_streams {
        return Err(Error::new(Reason::UnknownMethod, "gRPC-web carries no streams of the client"));
    }
    deadline.asked()?;
    Ok(method)
}

/// Answers a call that streams: it has no natural end, and so no deadline but the client's.
async fn stream<B>(
    shared: &Shared,
    method: &grpc::Method,
    parts: Parts,
    body: B,
    deadline: &Deadline,
) -> Response<Body>
where
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Unpin
        + 'static,
{
    let (holder, end) = (Holder::of_request(&parts.extensions), deadline.asked_end());
    let place = match admission::stream_without_key(shared, method) {
        Ok(place) => place,
        Err(error) => return Refusal::from(error).into_grpc(),
    };
    let answer =
        grpc::answer(shared, method, parts, body).map(|answer| answer.map_err(Refusal::from));
    let answer = match end {
        None => unbroken(answer, &method.path).await,
        Some(end) => in_time(end, answer, &method.path).await,
    };
    let answer = match (answer, place) {
        (Ok(answer), None) => answer,
        (Ok(answer), place) => answer.map(|body| Body::new(HoldingBody::new(body, place))),
        (Err(refusal), _) => return refusal.into_grpc(),
    };
    // A client's stream is ended on the client's side, and then its role has its say.
    if !method.client_streams && shared.backends.of(&method.package).is_some() {
        unsent::stream(shared, holder, ending::bounded(shared, answer, end))
    } else {
        unsent::stream(shared, holder, ending::bounded_by_deadline(answer, end))
    }
}

async fn answer_rest(
    shared: &Shared,
    seat: &ConnectionSlot,
    request: Request<Incoming>,
    id: &HeaderValue,
    observed: &mut Observed,
) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    if let Some(page) = shared.pages.find(parts.uri.path()) {
        let answer = page.answer(&parts).unwrap_or_else(|refusal| refusal.into_json(id));
        observed.on(&page.meter);
        return if parts.method == HttpMethod::HEAD { rest::without_body(answer) } else { answer };
    }
    let answer = match shared.routes.find(parts.method.as_str(), parts.uri.path()) {
        Ok(found) => {
            observed.on(&found.route.meter);
            let own = match ndjson::asked(found.route, &parts.headers) {
                Some(_) => ndjson::first_results(&shared.options),
                None => shared.options.request_timeout,
            };
            let deadline = Deadline::new(deadline::of_rest(&parts.headers), own);
            observed.client_deadline = deadline.is_of_client();
            match admission::admit(shared, seat, found.route.scope, &parts.headers, &deadline).await
            {
                Ok(principal) => {
                    if let Some(principal) = principal {
                        parts.extensions.insert(principal);
                    }
                    routed(shared, &found, &parts, body, &deadline).await
                }
                Err(error) => {
                    let close =
                        admission::let_go(&shared.options, parts.version, &parts.headers, body);
                    Err(Refusal { close, ..error.into() })
                }
            }
        }
        Err(refusal) => {
            observed.on(&unrouted("rest", &parts.method));
            Err(refusal)
        }
    };
    let answer = answer.unwrap_or_else(|refusal| refusal.into_json(id));
    if parts.method == HttpMethod::HEAD { rest::without_body(answer) } else { answer }
}

async fn routed(
    shared: &Shared,
    found: &Found<'_, '_>,
    parts: &Parts,
    body: Incoming,
    deadline: &Deadline,
) -> Result<Response<Body>, Refusal> {
    // Without a deadline the body is not read.
    deadline.asked().map_err(Refusal::closing)?;
    let answer = rest::answer(shared, found, parts, body, deadline);
    in_time(deadline.end(), answer, &found.route.template).await
}

/// The answer, or an error when it takes too long. The request is dropped then, and what it began
/// with it; whether it took effect is unknown.
async fn in_time(
    end: Instant,
    answer: impl Future<Output = Result<Response<Body>, Refusal>>,
    route: &str,
) -> Result<Response<Body>, Refusal> {
    tokio::time::timeout_at(end, unbroken(answer, route))
        .await
        .unwrap_or_else(|_| Err(Refusal::closing(deadline::passed())))
}

/// The answer, or an error when its code panics. The panic's own text may hold what the client
/// sent: only its place is logged, by the hook of the process.
async fn unbroken(
    answer: impl Future<Output = Result<Response<Body>, Refusal>>,
    route: &str,
) -> Result<Response<Body>, Refusal> {
    let answer = AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(route, "a request panicked");
        Err(Refusal::closing(Error::internal("a fault of the server")))
    });
    if let Err(Refusal { error, .. }) = &answer
        && error.reason == Reason::Internal
    {
        tracing::error!(route, error = %error.message, "a request failed by a fault of ours");
    }
    answer
}
