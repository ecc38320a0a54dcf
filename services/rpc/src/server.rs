//! The server loop of a role's gRPC services, and the service that a gateway calls in the same process.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Request, Response};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, service::Routes};
use tower::util::BoxCloneSyncService;

use crate::{
    auth::{Authenticate, Guard},
    channel::{CONNECTION_WINDOW, STREAM_WINDOW},
};

/// How long requests that began may take to end at shutdown. Callers between roles repeat what was cut.
pub const DRAIN: Duration = Duration::from_secs(10);

/// A gRPC service by its HTTP shape: a role in this process, or a channel to another.
pub type Backend = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// The public services of a role behind the guard.
#[must_use]
pub fn guarded(routes: Routes, keys: Arc<dyn Authenticate>) -> Backend {
    BoxCloneSyncService::new(Guard::new(routes.prepare(), keys))
}

/// Serves gRPC on a listener until `shutdown`, then lets requests that began end, for at most [`DRAIN`].
pub async fn serve(listener: TcpListener, service: Backend, shutdown: CancellationToken) -> Result<(), tonic::transport::Error> {
    let deadline = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    let serving = tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(1024)
        .http2_max_pending_accept_reset_streams(Some(64))
        .serve_with_incoming_shutdown(service, TcpListenerStream::new(listener), shutdown.cancelled());
    tokio::select! {
        outcome = serving => outcome,
        () = deadline => {
            tracing::warn!("requests between roles are cut at shutdown");
            Ok(())
        }
    }
}
