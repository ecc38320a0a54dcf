//! Ends an answer that takes too long, or whose code panics.

use std::{future::Future, panic::AssertUnwindSafe};

use futures::FutureExt;
use http::Response;
use outrider_model::{Error, Reason};
use tokio::time::Instant;
use tonic::body::Body;

use crate::exchange::{answer::Refusal, deadline};

/// Returns the answer, or an error if it takes too long. The request and everything that it started
/// is then dropped, and it is unknown whether it took effect.
pub(super) async fn in_time(
    end: Instant,
    answer: impl Future<Output = Result<Response<Body>, Refusal>>,
    route: &str,
) -> Result<Response<Body>, Refusal> {
    tokio::time::timeout_at(end, catch_panic(answer, route))
        .await
        .unwrap_or_else(|_| Err(Refusal::closing(deadline::passed())))
}

/// Returns the answer, or an error if its code panics. The text of the panic may have data of the
/// client, so only its location is logged, by the panic hook of the process.
pub(super) async fn catch_panic(
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
        let error = &error.message;
        tracing::error!(route, %error, "a request failed because of an internal fault");
    }
    answer
}
