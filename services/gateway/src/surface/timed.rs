//! What ends an answer that takes too long, or whose code panics.

use std::{future::Future, panic::AssertUnwindSafe};

use futures::FutureExt;
use http::Response;
use outrider_model::{Error, Reason};
use tokio::time::Instant;
use tonic::body::Body;

use crate::exchange::{answer::Refusal, deadline};

/// The answer, or an error when it takes too long. The request is dropped then, and what it began
/// with it; whether it took effect is unknown.
pub(super) async fn in_time(
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
pub(super) async fn unbroken(
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
