//! One request of either kind: its id, its deadline, its log line, and what happens when it goes wrong.

use std::{
    convert::Infallible,
    future::Future,
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderValue, Method as HttpMethod, Request, Response, Version, header::CONNECTION};
use hyper::body::Incoming;
use outrider_model::{Error, Reason};
use tonic::{Code, Status, body::Body};

use crate::{Shared, answer::Refusal, answer::code_name, deadline, ending, grpc, request_id, rest, web};

/// Answers a request; whatever happens, there is an answer with a request id.
pub(crate) async fn handle(shared: &Shared, mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let started = Instant::now();
    let id = request_id::settle(request.headers_mut());
    let (http_method, version) = (request.method().clone(), request.version());
    let (route, mut answer) = if grpc::is_grpc(request.headers()) {
        answer_grpc(shared, request).await
    } else {
        answer_rest(shared, request, &id).await
    };
    // Connections of HTTP/2 carry other requests, and know no such header.
    if version == Version::HTTP_2 {
        answer.headers_mut().remove(CONNECTION);
    }
    log(&http_method, &route, &answer, started, &id);
    answer.headers_mut().insert(request_id::HEADER, id);
    Ok(answer)
}

/// Never the path itself, which is the client's text and holds ids; never a body or a header.
fn log(http_method: &HttpMethod, route: &str, answer: &Response<Body>, started: Instant, id: &HeaderValue) {
    let duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    // An answer without the status in its headers has it in its trailers, and then a role's unary method went well.
    let grpc_status = Status::from_header_map(answer.headers()).map_or(Code::Ok, |status| status.code());
    let (status, id) = (answer.status().as_u16(), id.to_str().unwrap_or_default());
    // REST answers have no gRPC status: their HTTP status says it. What went well is of interest when looking for something only.
    let failed = status >= 500 || matches!(grpc_status, Code::Internal | Code::Unknown | Code::Unavailable | Code::DataLoss);
    let grpc_status = code_name(grpc_status);
    if failed {
        tracing::warn!(method = %http_method, route, status, grpc_status, duration_us, request_id = id, "request failed");
    } else {
        tracing::debug!(method = %http_method, route, status, grpc_status, duration_us, request_id = id, "request");
    }
}

const NO_ROUTE: &str = "-";

async fn answer_grpc(shared: &Shared, request: Request<Incoming>) -> (String, Response<Body>) {
    let route = shared.methods.find(request.uri().path()).map_or_else(|_| NO_ROUTE.into(), |method| method.path.clone());
    let answer =
        if web::is_web(request.headers()) { web::answer(shared, request).await } else { call(shared, request, false).await };
    (route, answer)
}

/// Answers a gRPC request, which may have come as gRPC-web.
pub(crate) async fn call<B>(shared: &Shared, request: Request<B>, from_web: bool) -> Response<Body>
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
        Err(error) => return Refusal::from(error).into_grpc(),
    };
    let (parts, body) = request.into_parts();
    let answer = grpc::answer(shared, method, parts, body).map(|answer| answer.map_err(Refusal::from));
    let end = end(asked);
    let answer = match asked {
        // It has no natural end, and so no deadline of ours.
        None if method.streams() => unbroken(answer, &method.path).await,
        Some(asked) if method.streams() => in_time(asked, answer, &method.path).await,
        _ => in_time(limit(shared, asked), answer, &method.path).await,
    };
    match answer {
        Ok(answer) if method.streams() && shared.backends.of(&method.package).is_some() => ending::bounded(shared, answer, end),
        Ok(answer) if method.streams() => ending::bounded_by_deadline(answer, end),
        Ok(answer) => answer,
        Err(refusal) => refusal.into_grpc(),
    }
}

/// When the time is up that a client asks for.
fn end(asked: Option<Duration>) -> Option<tokio::time::Instant> {
    asked.map(|asked| tokio::time::Instant::now() + asked)
}

/// What a client asks for, within our own limit.
fn limit(shared: &Shared, asked: Option<Duration>) -> Duration {
    asked.map_or(shared.options.request_timeout, |asked| asked.min(shared.options.request_timeout))
}

async fn answer_rest(shared: &Shared, request: Request<Incoming>, id: &HeaderValue) -> (String, Response<Body>) {
    let (parts, body) = request.into_parts();
    if let Some(page) = shared.pages.find(parts.uri.path()) {
        let answer = page.answer(&parts).unwrap_or_else(|refusal| refusal.into_json(id));
        let answer = if parts.method == HttpMethod::HEAD { rest::without_body(answer) } else { answer };
        return (page.path.to_owned(), answer);
    }
    let (route, answer) = match shared.routes.find(parts.method.as_str(), parts.uri.path()) {
        Ok(found) => {
            let template = &found.route.template;
            let answer = match deadline::of_rest(&parts.headers) {
                Ok(asked) => {
                    let answer = rest::answer(shared, &found, &parts, body, end(asked));
                    in_time(limit(shared, asked), answer, template).await
                }
                // The body was not read.
                Err(error) => Err(Refusal::closing(error)),
            };
            (template.clone(), answer)
        }
        Err(refusal) => (NO_ROUTE.into(), Err(refusal)),
    };
    let answer = answer.unwrap_or_else(|refusal| refusal.into_json(id));
    (route, if parts.method == HttpMethod::HEAD { rest::without_body(answer) } else { answer })
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
