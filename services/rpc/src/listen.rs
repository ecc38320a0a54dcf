//! Accepting connections, for all listeners.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::{socket::Socket, tls::Acceptor};

/// How long accepting rests after an error that is not a single connection's, such as too many open files.
const REST: Duration = Duration::from_millis(50);

/// The next connection. Errors are logged and waited out.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // What is sent is small and waited for. A socket that refuses this is already gone.
                let _ = stream.set_nodelay(true);
                return (stream, peer);
            }
            Err(error) if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) => {}
            Err(error) => {
                tracing::warn!(%error, "accepting failed");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

/// The connections of a listener, each once its handshake is done. Handshakes run side by side; at most `places` connections are open
/// or in their handshake, those beyond are closed as they come. The listener closes at `shutdown`, or when the stream is dropped.
pub fn sockets(
    listener: TcpListener,
    acceptor: Acceptor,
    places: usize,
    shutdown: CancellationToken,
) -> ReceiverStream<io::Result<Socket>> {
    let (ready, sockets) = mpsc::channel(1);
    let free = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
    tokio::spawn(async move {
        loop {
            let (stream, peer) = tokio::select! {
                () = shutdown.cancelled() => return,
                () = ready.closed() => return,
                accepted = accept(&listener) => accepted,
            };
            let Ok(place) = Arc::clone(&free).try_acquire_owned() else {
                tracing::warn!(%peer, limit = places, "too many connections: one is closed");
                continue;
            };
            let (ready, acceptor) = (ready.clone(), acceptor.clone());
            tokio::spawn(async move {
                match acceptor.accept(stream).await {
                    // Nobody takes it any more: it is closed.
                    Ok(socket) => drop(ready.send(Ok(socket.with_place(place))).await),
                    Err(error) => tracing::warn!(%peer, %error, "a connection between roles was not made"),
                }
            });
        }
    });
    ReceiverStream::new(sockets)
}
