//! How streams end that have no end of their own: when the gateway drains, and at the deadline that
//! the client gave.

use http::Response;
use outrider_model::Error;
use outrider_rpc::ending;
use tokio::time::Instant;
use tonic::body::Body;

use crate::exchange::{Shared, deadline};

/// The answer of a stream of gRPC, which ends when the gateway drains, so that it is told rather
/// than cut, and no later than its deadline.
pub(crate) fn bounded(
    shared: &Shared,
    answer: Response<Body>,
    deadline: Option<Instant>,
) -> Response<Body> {
    let draining = shared.draining();
    ending::until(answer, async move {
        tokio::select! {
            () = draining => Error::shutting_down(),
            error = at(deadline) => error,
        }
    })
}

/// The same for streams that end at a drain in a way of their own.
pub(crate) fn bounded_by_deadline(
    answer: Response<Body>,
    deadline: Option<Instant>,
) -> Response<Body> {
    ending::until(answer, at(deadline))
}

async fn at(deadline: Option<Instant>) -> Error {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
    deadline::passed()
}
