//! The server loop of a role's gRPC services, and the service that a gateway in the same process
//! calls.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Request, Response};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, service::Routes};
use tower::util::BoxCloneSyncService;

use crate::{
    channels::{
        channel::{CONNECTION_WINDOW, STREAM_WINDOW},
        listen,
    },
    guard::{
        auth::{Authenticate, Guard},
        methods,
    },
    tls::Acceptor,
    wire::request_errors::RequestErrors,
};

/// How long requests in flight may take at shutdown. Callers between roles repeat requests that
/// were cut.
pub const DRAIN: Duration = Duration::from_secs(10);

/// Maximum number of connections from roles in other processes. Further ones are closed at once.
const MAX_CONNECTIONS: usize = 4096;
/// Maximum number of concurrent calls on one connection.
const MAX_STREAMS: u32 = 1024;
/// Maximum size of the headers of a call, in bytes.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// Maximum number of calls on one connection that are reset before the server has seen them. With
/// more, the connection ends.
const MAX_PENDING_RESETS: usize = 64;
/// Maximum number of streams that the server resets because the peer violated the protocol, over
/// the life of one connection. With more, the connection ends.
const MAX_ERROR_RESETS: usize = 1024;
/// Interval of keep-alive pings on a silent connection, and how long the answer may take.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// A gRPC service as an HTTP service: a role in this process, or a channel to another process.
pub type Backend = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Puts the public services of a role behind the guard.
#[must_use]
pub fn guarded(routes: Routes, keys: Arc<dyn Authenticate>) -> Backend {
    BoxCloneSyncService::new(Guard::new(
        RequestErrors::new(routes.prepare(), methods::client_streams),
        keys,
    ))
}

/// Serves gRPC on a listener until `shutdown`, then waits for requests in flight, for at most
/// [`DRAIN`].
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
            tracing::warn!("requests between roles were cut at shutdown");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use outrider_model::{AcceptedEvent, AdmittedEvent, UsedKey};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        sync::Barrier,
        task::JoinHandle,
        time::timeout,
    };

    use super::*;
    use crate::channels::{
        channel::channel,
        intake::{
            Intake, RemoteIntake, service,
            wire::tests::{accepted, admitted},
        },
    };

    /// Length (3 bytes), type, flags and stream (4 bytes) of a frame: RFC 9113, section 4.1.
    const FRAME_HEAD: usize = 9;
    const GOAWAY: u8 = 7;

    /// A server, a connection on which only the server has sent a frame, and the token that ends
    /// the server.
    async fn silent() -> (JoinHandle<()>, TcpStream, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let service = BoxCloneSyncService::new(Routes::default().prepare());
        let serving = serve(listener, service, Acceptor::plain(), shutdown.clone());
        let serving = tokio::spawn(async move { serving.await.unwrap() });
        let mut connection = TcpStream::connect(address).await.unwrap();
        // The server's settings. Now it waits for the settings of the client.
        frame(&mut connection).await.unwrap();
        (serving, connection, shutdown)
    }

    /// Returns the type of the next frame, or `None` at the end.
    async fn frame(connection: &mut TcpStream) -> Option<u8> {
        let mut head = [0; FRAME_HEAD];
        connection.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        connection.read_exact(&mut vec![0; length as usize]).await.ok()?;
        Some(head[3])
    }

    #[tokio::test]
    async fn the_shutdown_waits_for_no_silent_connection() {
        let (serving, _connection, shutdown) = silent().await;
        shutdown.cancel();
        timeout(DRAIN / 2, serving).await.expect("it ends").unwrap();
    }

    #[tokio::test]
    async fn a_client_that_speaks_just_after_the_shutdown_learns_of_it() {
        let (serving, mut connection, shutdown) = silent().await;
        shutdown.cancel();
        let server = connection.peer_addr().unwrap();
        // The server has noticed the shutdown once its listener is closed.
        let closed = async { while TcpStream::connect(server).await.is_ok() {} };
        timeout(DRAIN / 2, closed).await.expect("its listener closes");
        connection
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .await
            .unwrap();
        let goaway = async {
            while frame(&mut connection).await.expect("it announces its end") != GOAWAY {}
        };
        timeout(DRAIN / 2, goaway).await.expect("it announces its end at once");
        drop(connection);
        timeout(DRAIN / 2, serving).await.expect("it ends").unwrap();
    }

    const CALLERS: usize = 2_000;

    /// Answers a whole crowd at once, when all its calls have arrived.
    struct Crowd(Barrier);

    #[async_trait]
    impl Intake for Crowd {
        async fn accept(
            &self,
            events: Vec<AdmittedEvent>,
        ) -> outrider_model::Result<Vec<outrider_model::Result<AcceptedEvent>>> {
            self.0.wait().await;
            Ok(events.iter().map(|_| Ok(accepted())).collect())
        }

        async fn find(
            &self,
            keys: Vec<UsedKey>,
        ) -> outrider_model::Result<Vec<Option<AcceptedEvent>>> {
            Ok(vec![None; keys.len()])
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_burst_of_short_answers_does_not_end_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let intake = service(Arc::new(Crowd(Barrier::new(CALLERS / 4))), 1 << 20);
        let routes = tonic::service::Routes::new(intake);
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(
            listener,
            BoxCloneSyncService::new(routes.prepare()),
            Acceptor::plain(),
            shutdown.clone(),
        ));
        let remote = RemoteIntake::new(channel(&url, None).unwrap(), None);
        let calls = (0..CALLERS).map(|_| remote.accept(vec![admitted()]));
        let all = tokio::time::timeout(Duration::from_secs(60), futures::future::join_all(calls))
            .await
            .unwrap();
        for answer in all {
            assert_eq!(answer.unwrap().len(), 1);
        }
        shutdown.cancel();
        serving.await.unwrap().unwrap();
    }
}
