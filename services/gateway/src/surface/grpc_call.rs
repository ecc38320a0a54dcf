//! A gRPC call, whether it arrived as gRPC or as gRPC-web.

use bytes::Bytes;
use futures::FutureExt;
use http::{Request, Response, request::Parts};
use outrider_model::{Error, Reason};
use outrider_rpc::HoldingBody;
use outrider_shares::Holder;
use tonic::body::Body;

use super::{
    Surfaces, admission, grpc,
    timed::{catch_panic, in_time},
};
use crate::{
    exchange::{answer::Refusal, deadline::Deadline, ending, observe::SeenStatus, unsent},
    route::Method,
};

/// Answers a gRPC request, which may have arrived as gRPC-web.
pub(crate) async fn call<B>(
    surfaces: &Surfaces,
    request: Request<B>,
    from_web: bool,
    deadline: &Deadline,
    seen: &SeenStatus,
) -> Response<Body>
where
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Unpin
        + 'static,
{
    let method = match callable(surfaces, request.uri().path(), from_web, deadline) {
        Ok(method) => method,
        Err(error) => return seen.watch(Refusal::from(error).into_grpc()),
    };
    let (parts, body) = request.into_parts();
    if method.streams() {
        // Boxed, because it would enlarge the future of every call.
        return seen.watch(Box::pin(stream(surfaces, method, parts, body, deadline)).await);
    }
    let answer =
        grpc::answer(surfaces, method, parts, body).map(|answer| answer.map_err(Refusal::from));
    seen.watch(
        in_time(deadline.end(), answer, &method.path).await.unwrap_or_else(Refusal::into_grpc),
    )
}

fn callable<'s>(
    surfaces: &'s Surfaces,
    path: &str,
    from_web: bool,
    deadline: &Deadline,
) -> Result<&'s Method, Error> {
    let method = surfaces.methods.find(path)?;
    if from_web && method.client_streams {
        return Err(Error::new(Reason::UnknownMethod, "gRPC-web does not support client streams"));
    }
    deadline.asked()?;
    Ok(method)
}

/// Answers a call that streams. It has no natural end, and so no deadline except the client's.
async fn stream<B>(
    surfaces: &Surfaces,
    method: &Method,
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
    let place = match admission::stream_without_key(&surfaces.shared, method) {
        Ok(place) => place,
        Err(error) => return Refusal::from(error).into_grpc(),
    };
    let answer =
        grpc::answer(surfaces, method, parts, body).map(|answer| answer.map_err(Refusal::from));
    let answer = match end {
        None => catch_panic(answer, &method.path).await,
        Some(end) => in_time(end, answer, &method.path).await,
    };
    let shared = &surfaces.shared;
    let answer = match (answer, place) {
        (Ok(answer), None) => answer,
        (Ok(answer), place) => answer.map(|body| Body::new(HoldingBody::new(body, place))),
        (Err(refusal), _) => return refusal.into_grpc(),
    };
    // A client stream is ended on the client's side, and its role then gives the answer.
    if !method.client_streams && shared.backends.of(&method.package).is_some() {
        unsent::stream(shared, holder, ending::bounded(shared, answer, end))
    } else {
        unsent::stream(shared, holder, ending::bounded_by_deadline(answer, end))
    }
}
