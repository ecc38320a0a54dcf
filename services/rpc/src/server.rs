//! The server loop of a role's gRPC services, and the service that a gateway calls in the same process.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Request, Response};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, service::Routes};
use tower::util::BoxCloneSyncService;

use crate::{
    auth::{Authenticate, Guard},
    channel::{CONNECTION_WINDOW, STREAM_WINDOW},
    listen, methods,
    tls::Acceptor,
    wire::Wire,
};

/// How long requests that began may take to end at shutdown. Callers between roles repeat what was cut.
pub const DRAIN: Duration = Duration::from_secs(10);

/// Connections at once, of roles in other processes; those beyond are closed as they come.
const MAX_CONNECTIONS: usize = 4096;
/// Calls at once on one connection.
const MAX_STREAMS: u32 = 1024;
/// The headers of a call, in bytes.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// Calls that were reset before the server saw them, at once on one connection; with more the connection ends.
const MAX_PENDING_RESETS: usize = 64;
/// Streams that the server had to reset since the peer broke the rules, in the life of one connection; with more it ends.
const MAX_ERROR_RESETS: usize = 1024;
/// How often a silent peer is asked whether it is there, and how long its answer may take.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// A gRPC service by its HTTP shape: a role in this process, or a channel to another.
pub type Backend = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// The public services of a role behind the guard.
#[must_use]
pub fn guarded(routes: Routes, keys: Arc<dyn Authenticate>) -> Backend {
    BoxCloneSyncService::new(Guard::new(Wire::new(routes.prepare(), methods::client_streams), keys))
}

/// Serves gRPC on a listener until `shutdown`, then lets requests that began end, for at most [`DRAIN`].
pub async fn serve(
    listener: TcpListener,
    service: Backend,
    acceptor: Acceptor,
    shutdown: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let deadline = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    let sockets = listen::sockets(listener, acceptor, MAX_CONNECTIONS, shutdown.clone());
    let serving = tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESETS))
        .http2_max_local_error_reset_streams(Some(MAX_ERROR_RESETS))
        .http2_keepalive_interval(Some(KEEP_ALIVE.0))
        .http2_keepalive_timeout(Some(KEEP_ALIVE.1))
        .serve_with_incoming_shutdown(service, sockets, shutdown.cancelled());
    tokio::select! {
        outcome = serving => outcome,
        () = deadline => {
            tracing::warn!("requests between roles are cut at shutdown");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

    use super::*;

    #[tokio::test]
    async fn the_shutdown_waits_for_no_silent_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let service = BoxCloneSyncService::new(Routes::default().prepare());
        let serving = tokio::spawn(serve(listener, service, Acceptor::plain(), shutdown.clone()));
        let mut silent = TcpStream::connect(address).await.unwrap();
        // The settings of the server: it waits for those of the client.
        silent.read_exact(&mut [0; 9]).await.unwrap();
        shutdown.cancel();
        timeout(DRAIN / 2, serving).await.expect("it ends").unwrap().unwrap();
    }
}
