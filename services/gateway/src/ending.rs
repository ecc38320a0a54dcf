//! How streams end that have no end of their own: when the gateway drains, and at the deadline that the client gave.

use std::future::Future;

use http::Response;
use outrider_model::Error;
use outrider_rpc::ending;
use tokio::time::Instant;
use tonic::body::Body;

use crate::{Shared, deadline};

/// The answer of a stream of gRPC, which ends when the gateway drains, so that it is told rather than cut, and no later than its
/// deadline.
pub(crate) fn bounded(shared: &Shared, answer: Response<Body>, deadline: Option<Instant>) -> Response<Body> {
    let draining = draining(shared);
    ending::until(answer, async move {
        tokio::select! {
            error = draining => error,
            error = at(deadline) => error,
        }
    })
}

/// The same for the streams that the gateway itself answers, which tell a drain in words of their own.
pub(crate) fn bounded_by_deadline(answer: Response<Body>, deadline: Option<Instant>) -> Response<Body> {
    ending::until(answer, at(deadline))
}

fn draining(shared: &Shared) -> impl Future<Output = Error> + Send + use<> {
    let mut serving = shared.serving.subscribe();
    async move {
        // Gone with the gateway, it says the same.
        let _ = serving.wait_for(|serving| !serving).await;
        Error::unavailable("the server is shutting down; go on elsewhere")
    }
}

async fn at(deadline: Option<Instant>) -> Error {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
    deadline::passed()
}
