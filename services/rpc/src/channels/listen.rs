//! Accepts connections, for all listeners.

use std::{
    fs::File,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use outrider_telemetry::{Seldom, essential};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::{
    tls::{Acceptor, socket::Socket},
    wire::cause,
};

/// Pause after an error that does not concern a single connection, such as too many open files.
const REST: Duration = Duration::from_millis(50);

/// How long a connection without any request stays open at a shutdown. Its client may be about to
/// send a call, and then learns that the server is shutting down. If the connection were cut, the
/// client would not know the outcome of the call.
const LINGER: Duration = Duration::from_secs(1);

/// A spare file descriptor of the process.
static SPARE: Mutex<Option<File>> = Mutex::new(None);

// Peers can cause these events at will, so the log lines are bounded.
static NOT_ACCEPTED: Seldom = Seldom::new();
static FULL: Seldom = Seldom::new();
static NOT_MADE: Seldom = Seldom::new();

/// Whether the process or the system has no file descriptors left, and so cannot open a connection.
/// The other side is not at fault.
#[must_use]
pub fn is_out_of_files(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

/// Accepts the next connection. Logs errors and waits until they pass. While there are no file
/// descriptors left, it uses a spare one to accept and close connections, so that clients notice at
/// once and do not wait for an answer that cannot come.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    keep_spare();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Messages are small, and the peer waits for them. A socket that refuses this is
                // already closed.
                let _ = stream.set_nodelay(true);
                return (stream, peer);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ConnectionAborted | ConnectionRefused | ConnectionReset
                ) => {}
            Err(error) => {
                warn(&error);
                if is_out_of_files(&error) {
                    turn_one_away(listener).await;
                } else {
                    sleep(REST).await;
                }
            }
        }
    }
}

/// Closes the spare file, accepts a connection with its descriptor, and closes it.
async fn turn_one_away(listener: &TcpListener) {
    if spare().take().is_none() {
        sleep(REST).await;
    } else {
        // Another thread may have been faster, or the peer is gone.
        drop(timeout(REST, listener.accept()).await);
    }
    keep_spare();
}

fn keep_spare() {
    let mut spare = spare();
    if spare.is_none() {
        *spare = File::open("/dev/null").ok();
    }
}

fn warn(error: &io::Error) {
    if let Some(times) = NOT_ACCEPTED.happened() {
        tracing::warn!(%error, times, "connections are not accepted");
    }
}

fn spare() -> MutexGuard<'static, Option<File>> {
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the connections of a listener, each after its handshake. Handshakes run concurrently. At
/// most `limit` connections are open or in their handshake; further ones are closed at once. The
/// listener closes at `shutdown` or when the stream is dropped. A moment later, connections without
/// any request end.
pub fn sockets(
    listener: TcpListener,
    acceptor: Acceptor,
    limit: usize,
    shutdown: CancellationToken,
) -> ReceiverStream<io::Result<Socket>> {
    let (ready, sockets) = mpsc::channel(1);
    let free = Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)));
    let end_of_linger = CancellationToken::new();
    tokio::spawn(essential("accepting", async move {
        loop {
            let (stream, peer) = tokio::select! {
                () = shutdown.cancelled() => break,
                () = ready.closed() => break,
                accepted = accept(&listener) => accepted,
            };
            let Ok(permit) = Arc::clone(&free).try_acquire_owned() else {
                if let Some(times) = FULL.happened() {
                    tracing::warn!(%peer, limit, times, "too many connections: one is closed");
                }
                continue;
            };
            let (ready, acceptor, end) = (ready.clone(), acceptor.clone(), end_of_linger.clone());
            tokio::spawn(async move {
                match acceptor.accept(stream).await {
                    Ok(socket) => {
                        let socket = socket.with_permit(permit).ending_if_silent_at(end);
                        // The receiver may be gone: then the connection is closed.
                        drop(ready.send(Ok(socket)).await);
                    }
                    Err(error) => {
                        if let Some(times) = NOT_MADE.happened() {
                            let error = cause::of_client(&error);
                            tracing::warn!(
                                %peer, error, times, "a connection between roles failed"
                            );
                        }
                    }
                }
            });
        }
        drop(listener);
        sleep(LINGER).await;
        end_of_linger.cancel();
    }));
    ReceiverStream::new(sockets)
}
