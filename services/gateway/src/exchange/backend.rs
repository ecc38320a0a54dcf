//! Where requests go: to a role in this process, or through a channel to another process.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
use outrider_model::Error;
use outrider_rpc::{
    Resend, ResendingChannel, RoleChannel, Streams, cause, methods, server::Backend, to_status,
};
use tonic::body::Body;
use tower::{Service, ServiceExt, util::BoxCloneSyncService};

/// The roles behind the gateway. Each serves the public services of its proto package.
#[derive(Clone)]
pub struct Backends {
    /// Serves `outrider.ingest.v1`.
    pub ingest: Backend,
    /// Serves `outrider.dispatch.v1`.
    pub dispatch: Backend,
    /// Serves `outrider.admin.v1`.
    pub admin: Backend,
}

impl Backends {
    /// Returns the role that serves a proto package.
    pub(crate) fn of(&self, package: &str) -> Option<Backend> {
        match package {
            "outrider.ingest.v1" => Some(self.ingest.clone()),
            "outrider.dispatch.v1" => Some(self.dispatch.clone()),
            "outrider.admin.v1" => Some(self.admin.clone()),
            _ => None,
        }
    }
}

/// Returns a role in another process: a channel for calls, and separate connections for streams,
/// because their clients may stop reading. If either fails, the answer is UNAVAILABLE.
#[must_use]
pub fn remote_backend(role: RoleChannel, streams: Streams) -> Backend {
    BoxCloneSyncService::new(Remote { calls: Resend::new(role.channel()), role, streams })
}

#[derive(Clone)]
struct Remote {
    calls: ResendingChannel,
    role: RoleChannel,
    streams: Streams,
}

impl Service<Request<Body>> for Remote {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The channel may become ready with an error. Only an answer can report it, so the call
        // waits for the channel.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let streams = methods::streams(request.uri().path());
        let Self { calls, role, streams: streaming } = self.clone();
        let (request, broke) = watched(request);
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let answer = if streams {
                streaming.oneshot(request).await
            } else {
                calls.oneshot(request).await
            };
            match answer {
                Ok(answer) => Ok(answer),
                // Nobody reads this answer: the gateway knows why the body ended.
                Err(error) if broke.load(Ordering::Relaxed) => {
                    tracing::debug!(%path, error = cause::words(&error), "a request broke off");
                    Ok(to_status(Error::unavailable("the request broke off")).into_http())
                }
                Err(error) => {
                    role.report_unreachable(role_of(&path), cause::words(&error));
                    Ok(to_status(Error::unavailable("a server that is needed does not answer"))
                        .into_http())
                }
            }
        })
    }
}

/// Returns the request and a flag that is set when its body ends with an error. A call that fails
/// after that says nothing about the role.
fn watched(request: Request<Body>) -> (Request<Body>, Arc<AtomicBool>) {
    let broke = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&broke);
    let tell = move |error| {
        told.store(true, Ordering::Relaxed);
        error
    };
    (request.map(|body| Body::new(body.map_err(tell))), broke)
}

/// Returns the role that serves a method: the second part of its package, as in
/// `/outrider.ingest.v1.IngestService/PublishEvent`.
fn role_of(path: &str) -> &str {
    path.split('.').nth(1).unwrap_or(path)
}
