//! How streams without a natural end are ended: when the gateway drains, and at the client's
//! deadline.

use http::Response;
use outrider_model::Error;
use outrider_rpc::ending;
use tokio::time::Instant;
use tonic::body::Body;

use crate::exchange::{Shared, deadline};

/// Ends a stream when the gateway drains, with an error instead of a cut, or at its deadline.
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

/// Ends a stream at its deadline only, for streams that handle a drain in another way.
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
