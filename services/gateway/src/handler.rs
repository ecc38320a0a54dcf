//! One request of either kind: its id, its deadline, its log line, and what happens when it goes wrong.

use std::{convert::Infallible, future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::FutureExt;
use http::{
    HeaderValue, Method as HttpMethod, Request, Response, Version,
    header::{CONNECTION, HOST},
    request::Parts,
};
use hyper::body::Incoming;
use outrider_model::{Error, Reason};
use outrider_rpc::Seat;
use outrider_shares::Holder;
use tonic::body::Body;

use crate::{
    Shared, admission,
    answer::Refusal,
    deadline, ending,
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
pub(crate) async fn handle(shared: &Shared, seat: &Seat, mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let id = request_id::settle(request.headers_mut());
    let mut observed = Observed::begin(&mut request, id.clone());
    let version = request.version();
    let dialect = Dialect::of(request.headers());
    let mut answer = match (vet(shared, &request), dialect) {
        (Err(refusal), dialect) => {
            observed.on(&unrouted(dialect.map_or("rest", Dialect::protocol), request.method()));
            if dialect.is_some() { observed.seen.watch(refusal.into_grpc()) } else { refusal.into_json(&id) }
        }
        // Boxed: it would make the future of a REST request larger, which is moved more than once.
        (Ok(()), Some(dialect)) => Box::pin(answer_grpc(shared, seat, request, dialect, &mut observed)).await,
        (Ok(()), None) => answer_rest(shared, seat, request, &id, &mut observed).await,
    };
    // Connections of HTTP/2 carry other requests, and know no such header.
    if version == Version::HTTP_2 {
        answer.headers_mut().remove(CONNECTION);
    }
    answer.headers_mut().insert(request_id::HEADER, id);
    Ok(observed.answered(answer))
}

/// Refuses a request by its head alone: an address that is too long, and in HTTP/1.1 a host that is missing or given twice, by which
/// another server on the way could have sent it elsewhere (RFC 9112, section 3.2).
fn vet(shared: &Shared, request: &Request<Incoming>) -> Result<(), Refusal> {
    if let Some(fault) = request.extensions().get::<Fault>() {
        return Err(Refusal::closing(fault.error(&shared.options)));
    }
    if request.version() == Version::HTTP_2 && head::list_size(request.headers()) > Limits::of(&shared.options).bytes {
        return Err(Fault::HeadersTooLarge.error(&shared.options).into());
    }
    let limit = shared.options.max_uri_bytes;
    if request.uri().path_and_query().map_or(0, |path| path.as_str().len()) > limit {
        let error = Error::new(Reason::UriTooLong, format!("path and query are over {limit} bytes"));
        return Err(Refusal::closing(error));
    }
    if request.version() == Version::HTTP_11 && request.headers().get_all(HOST).iter().count() != 1 {
        return Err(Refusal::closing(Error::new(Reason::MalformedRequest, "there must be one Host header")));
    }
    Ok(())
}

const NO_ROUTE: &str = "-";

async fn answer_grpc(
    shared: &Shared,
    seat: &Seat,
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
    if let Err(error) = admission::admit_request(shared, seat, scope, &mut request).await {
        let (parts, body) = request.into_parts();
        let close = admission::let_go(&shared.options, parts.version, &parts.headers, body);
        let answer = seen.watch(Refusal { close, ..error.into() }.into_grpc());
        return if is_web { web::refused(answer) } else { answer };
    }
    match dialect {
        // Boxed: it would make the future of every request as large.
        Dialect::Web { text } => Box::pin(web::answer(shared, request, text, &seen)).await,
        _ => call(shared, request, false, &seen).await,
    }
}

/// Of requests that lead nowhere: they are few, or cheap to count among what an attacker costs.
fn unrouted(protocol: &'static str, method: &HttpMethod) -> Arc<Meter> {
    Arc::new(Meter::new(protocol, method.as_str(), NO_ROUTE, false))
}

/// Answers a gRPC request, which may have come as gRPC-web.
pub(crate) async fn call<B>(shared: &Shared, request: Request<B>, from_web: bool, seen: &Seen) -> Response<Body>
where
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
{
    let asked = shared.methods.find(request.uri().path()).and_then(|method| {
        if from_web && method.client_streams {
            return Err(Error::new(Reason::UnknownMethod, "gRPC-web carries no streams of the client"));
        }
        Ok((method, deadline::of_grpc(request.headers())?))
    });
    let (method, asked) = match asked {
        Ok(asked) => asked,
        Err(error) => return seen.watch(Refusal::from(error).into_grpc()),
    };
    let (parts, body) = request.into_parts();
    let holder = Holder::of_request(&parts.extensions);
    let answer = grpc::answer(shared, method, parts, body).map(|answer| answer.map_err(Refusal::from));
    let end = end(asked);
    let answer = match asked {
        // It has no natural end, and so no deadline of ours.
        None if method.streams() => unbroken(answer, &method.path).await,
        Some(asked) if method.streams() => in_time(asked, answer, &method.path).await,
        _ => in_time(limit(shared, asked), answer, &method.path).await,
    };
    let answer = match answer {
        // A client's stream is ended on the client's side, and then its role has its say.
        Ok(answer) if method.streams() && !method.client_streams && shared.backends.of(&method.package).is_some() => {
            unsent::stream(shared, holder, ending::bounded(shared, answer, end))
        }
        Ok(answer) if method.streams() => unsent::stream(shared, holder, ending::bounded_by_deadline(answer, end)),
        Ok(answer) => answer,
        Err(refusal) => refusal.into_grpc(),
    };
    seen.watch(answer)
}

/// When the time is up that a client asks for.
fn end(asked: Option<Duration>) -> Option<tokio::time::Instant> {
    asked.map(|asked| tokio::time::Instant::now() + asked)
}

/// What a client asks for, within our own limit.
fn limit(shared: &Shared, asked: Option<Duration>) -> Duration {
    asked.map_or(shared.options.request_timeout, |asked| asked.min(shared.options.request_timeout))
}

async fn answer_rest(
    shared: &Shared,
    seat: &Seat,
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
            match admission::admit(shared, seat, found.route.scope, &parts.headers).await {
                Ok(principal) => {
                    if let Some(principal) = principal {
                        parts.extensions.insert(principal);
                    }
                    routed(shared, &found, &parts, body, observed).await
                }
                Err(error) => {
                    let close = admission::let_go(&shared.options, parts.version, &parts.headers, body);
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
    observed: &mut Observed,
) -> Result<Response<Body>, Refusal> {
    // Without a deadline the body is not read.
    let asked = deadline::of_rest(&parts.headers).map_err(Refusal::closing)?;
    observed.client_deadline = asked.is_some_and(|asked| asked < shared.options.request_timeout);
    let answer = rest::answer(shared, found, parts, body, end(asked));
    let limit = match ndjson::asked(found.route, &parts.headers) {
        Some(_) => ndjson::first_results(&shared.options, asked),
        None => limit(shared, asked),
    };
    in_time(limit, answer, &found.route.template).await
}

/// The answer, or an error when it takes too long. The request is dropped then, and what it began with it; whether it took effect
/// is unknown.
async fn in_time(
    limit: Duration,
    answer: impl Future<Output = Result<Response<Body>, Refusal>>,
    route: &str,
) -> Result<Response<Body>, Refusal> {
    tokio::time::timeout(limit, unbroken(answer, route)).await.unwrap_or_else(|_| Err(Refusal::closing(deadline::passed())))
}

/// The answer, or an error when its code panics. The panic's own text may hold what the client sent: only its place is logged, by
/// the hook of the process.
async fn unbroken(answer: impl Future<Output = Result<Response<Body>, Refusal>>, route: &str) -> Result<Response<Body>, Refusal> {
    AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(route, "a request panicked");
        Err(Refusal::closing(Error::internal("a fault of the server")))
    })
}
