//! The server loop of a role's gRPC services, and the service that a gateway calls in the same process.

use std::{convert::Infallible, future::Future, sync::Arc};

use http::{Request, Response};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{body::Body, service::Routes};
use tower::util::BoxCloneSyncService;

use crate::auth::{Authenticate, Guard};

/// A gRPC service by its HTTP shape: a role in this process, or a channel to another.
pub type Backend = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// The public services of a role behind the guard.
#[must_use]
pub fn guarded(routes: Routes, keys: Arc<dyn Authenticate>) -> Backend {
    BoxCloneSyncService::new(Guard::new(routes.prepare(), keys))
}

/// Serves gRPC on a listener until `shutdown` resolves, then lets requests that began end.
pub async fn serve(listener: TcpListener, service: Backend, shutdown: impl Future<Output = ()> + Send) -> Result<(), tonic::transport::Error> {
    tonic::transport::Server::builder()
        .http2_adaptive_window(Some(true))
        .max_concurrent_streams(1024)
        .http2_max_pending_accept_reset_streams(Some(64))
        .serve_with_incoming_shutdown(service, TcpListenerStream::new(listener), shutdown)
        .await
}
