//! Handles a request of any protocol: its id, its deadline, its log line, and its errors.

use std::{convert::Infallible, sync::Arc};

use http::{
    HeaderValue, Method as HttpMethod, Request, Response, Version,
    header::{CONNECTION, HOST},
    request::Parts,
};
use hyper::body::Incoming;
use outrider_model::{Error, Reason};
use outrider_rpc::ConnectionSlot;
use tonic::body::Body;

use crate::{
    connection::head::{self, Fault, Limits},
    exchange::{
        Shared,
        answer::Refusal,
        deadline::{self, Deadline},
        meter::Meter,
        observe::Observed,
    },
    ndjson, request_id,
    route::Found,
    surface::{
        Surfaces, admission,
        grpc::{self, Dialect},
        grpc_call, rest,
        timed::in_time,
        web,
    },
};

/// Answers a request. In every case, there is an answer with a request id. A caller with a valid
/// key keeps the slot of its connection.
pub(crate) async fn handle(
    surfaces: &Surfaces,
    slot: &ConnectionSlot,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let id = request_id::ensure(request.headers_mut());
    let mut observed = Observed::begin(&mut request, id.clone());
    let version = request.version();
    let dialect = Dialect::of(request.headers());
    let mut answer = match (vet(&surfaces.shared, &request), dialect) {
        (Err(refusal), dialect) => {
            observed.on(&unrouted(dialect.map_or("rest", Dialect::protocol), request.method()));
            if dialect.is_some() {
                observed.seen.watch(refusal.into_grpc())
            } else {
                refusal.into_json(&id)
            }
        }
        // Boxed, because it would enlarge the future of a REST request, which is moved more than
        // once.
        (Ok(()), Some(dialect)) => {
            Box::pin(answer_grpc(surfaces, slot, request, dialect, &mut observed)).await
        }
        (Ok(()), None) => answer_rest(surfaces, slot, request, &id, &mut observed).await,
    };
    // HTTP/2 connections carry other requests, and HTTP/2 has no such header.
    if version == Version::HTTP_2 {
        answer.headers_mut().remove(CONNECTION);
    }
    answer.headers_mut().insert(request_id::HEADER, id);
    Ok(observed.answered(answer))
}

/// Refuses a request by its head alone: an address that is too long, and in HTTP/1.1 a missing or
/// duplicate host, which another server on the way could have routed differently (RFC 9112, section
/// 3.2).
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
    surfaces: &Surfaces,
    slot: &ConnectionSlot,
    mut request: Request<Incoming>,
    dialect: Dialect,
    observed: &mut Observed,
) -> Response<Body> {
    let shared = &surfaces.shared;
    let seen = observed.seen.clone();
    let is_web = dialect.is_web();
    if let Err(refusal) = grpc::check_head(dialect, request.method(), request.version()) {
        observed.on(&unrouted(dialect.protocol(), request.method()));
        let answer = seen.watch(refusal.into_grpc_with_status());
        return if is_web { web::refused(answer) } else { answer };
    }
    let scope = match surfaces.methods.find(request.uri().path()) {
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
    if let Err(error) = admission::admit_request(shared, slot, scope, &mut request, &deadline).await
    {
        let (parts, body) = request.into_parts();
        let close = admission::discard(&shared.options, parts.version, &parts.headers, body);
        let answer = seen.watch(Refusal { close, ..error.into() }.into_grpc());
        return if is_web { web::refused(answer) } else { answer };
    }
    match dialect {
        // Boxed, because it would enlarge the future of every request.
        Dialect::Web { text } => {
            Box::pin(web::answer(surfaces, request, text, &deadline, &seen)).await
        }
        _ => grpc_call::call(surfaces, request, false, &deadline, &seen).await,
    }
}

/// Returns new counters for a request without a route. Such requests are few, or the cost of
/// counting is small next to the other costs of an attack.
fn unrouted(protocol: &'static str, method: &HttpMethod) -> Arc<Meter> {
    Arc::new(Meter::new(protocol, method.as_str(), NO_ROUTE, false))
}

async fn answer_rest(
    surfaces: &Surfaces,
    slot: &ConnectionSlot,
    request: Request<Incoming>,
    id: &HeaderValue,
    observed: &mut Observed,
) -> Response<Body> {
    let shared = &surfaces.shared;
    let (mut parts, body) = request.into_parts();
    if let Some(page) = surfaces.pages.find(parts.uri.path()) {
        let answer = page.answer(&parts).unwrap_or_else(|refusal| refusal.into_json(id));
        observed.on(&page.meter);
        return if parts.method == HttpMethod::HEAD { rest::without_body(answer) } else { answer };
    }
    let answer = match surfaces.routes.find(parts.method.as_str(), parts.uri.path()) {
        Ok(found) => {
            observed.on(&found.route.meter);
            let own = match ndjson::rule_for(found.route, &parts.headers) {
                Some(_) => ndjson::first_results(&shared.options),
                None => shared.options.request_timeout,
            };
            let deadline = Deadline::new(deadline::of_rest(&parts.headers), own);
            observed.client_deadline = deadline.is_of_client();
            match admission::admit(shared, slot, found.route.scope, &parts.headers, &deadline).await
            {
                Ok(principal) => {
                    if let Some(principal) = principal {
                        parts.extensions.insert(principal);
                    }
                    routed(&surfaces.shared, &found, &parts, body, &deadline).await
                }
                Err(error) => {
                    let close =
                        admission::discard(&shared.options, parts.version, &parts.headers, body);
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
    // If the deadline is malformed, the body is not read.
    deadline.asked().map_err(Refusal::closing)?;
    let answer = rest::answer(shared, found, parts, body, deadline);
    in_time(deadline.end(), answer, &found.route.template).await
}
