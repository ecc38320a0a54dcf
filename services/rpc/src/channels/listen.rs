//! Accepting connections, for all listeners.

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

/// How long accepting rests after an error that is not a single connection's, such as too many open
/// files.
const REST: Duration = Duration::from_millis(50);

/// How long a connection on which nothing was said lives on at a shutdown. Its client may be about
/// to speak, and is told then that the server ends; cut off it would not know what came of its
/// call.
const LINGER: Duration = Duration::from_secs(1);

/// A file of no use; one for the process.
static SPARE: Mutex<Option<File>> = Mutex::new(None);

/// What a peer can make happen as often as it likes.
static NOT_ACCEPTED: Seldom = Seldom::new();
static FULL: Seldom = Seldom::new();
static NOT_MADE: Seldom = Seldom::new();

/// Whether a process, or its system, may open no further file, and so no connection: no fault of
/// the other side.
#[must_use]
pub fn is_out_of_files(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

/// The next connection. Errors are logged and waited out. Without files to open, connections are
/// taken in the place of a spare one and closed: who made them hears it at once, instead of waiting
/// for an answer that cannot come.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    keep_spare();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // What is sent is small and waited for. A socket that refuses this is already gone.
                let _ = stream.set_nodelay(true);
                return (stream, peer);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ConnectionAborted | ConnectionRefused | ConnectionReset
                ) => {}
            Err(error) => {
                tell(&error);
                if is_out_of_files(&error) {
                    turn_one_away(listener).await;
                } else {
                    sleep(REST).await;
                }
            }
        }
    }
}

/// Closes the spare file, takes a connection in its place and closes that.
async fn turn_one_away(listener: &TcpListener) {
    if spare().take().is_none() {
        sleep(REST).await;
    } else {
        // Somebody else may have been quicker, or the peer has gone.
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

fn tell(error: &io::Error) {
    if let Some(times) = NOT_ACCEPTED.happened() {
        tracing::warn!(%error, times, "connections are not accepted");
    }
}

fn spare() -> MutexGuard<'static, Option<File>> {
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The connections of a listener, each once its handshake is done. Handshakes run side by side; at
/// most `places` connections are open or in their handshake, those beyond are closed as they come.
/// The listener closes at `shutdown` or when the stream is dropped, and a moment later those
/// connections end on which nothing was said.
pub fn sockets(
    listener: TcpListener,
    acceptor: Acceptor,
    places: usize,
    shutdown: CancellationToken,
) -> ReceiverStream<io::Result<Socket>> {
    let (ready, sockets) = mpsc::channel(1);
    let free = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
    let end_of_silence = CancellationToken::new();
    tokio::spawn(essential("accepting", async move {
        loop {
            let (stream, peer) = tokio::select! {
                () = shutdown.cancelled() => break,
                () = ready.closed() => break,
                accepted = accept(&listener) => accepted,
            };
            let Ok(place) = Arc::clone(&free).try_acquire_owned() else {
                if let Some(times) = FULL.happened() {
                    tracing::warn!(%peer, limit = places, times, "too many connections: one is closed");
                }
                continue;
            };
            let (ready, acceptor, end) = (ready.clone(), acceptor.clone(), end_of_silence.clone());
            tokio::spawn(async move {
                match acceptor.accept(stream).await {
                    Ok(socket) => {
                        let socket = socket.with_place(place).ending_if_silent_at(end);
                        // Nobody takes it any more: it is closed.
                        drop(ready.send(Ok(socket)).await);
                    }
                    Err(error) => {
                        if let Some(times) = NOT_MADE.happened() {
                            let error = cause::of_client(&error);
                            tracing::warn!(%peer, error, times, "a connection between roles was not made");
                        }
                    }
                }
            });
        }
        drop(listener);
        sleep(LINGER).await;
        end_of_silence.cancel();
    }));
    ReceiverStream::new(sockets)
}
