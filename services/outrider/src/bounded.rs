//! Serves HTTP/1.1 within fixed bounds, for the operations listener.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use outrider_rpc::{ConnectionSlot, ConnectionSlots, listen};
use outrider_telemetry::Seldom;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

/// Maximum number of connections. A further one replaces the connection that has gone without a
/// request for the longest time.
const MAX_CONNECTIONS: usize = 256;
/// Maximum size of the head of a request, in bytes.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Maximum number of header fields of a request.
const MAX_HEADERS: usize = 100;
/// How long a head may take, including the wait for it. A connection without a request is closed
/// after this time.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum lifetime of a connection. Scrapers connect again.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(600);

/// Bounds the log lines about connections over the limit.
static FULL: Seldom = Seldom::new();

/// Serves until `shutdown`. Then finishes the answers that have begun, and closes the other
/// connections.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let (connections, places) = (TaskTracker::new(), ConnectionSlots::new(MAX_CONNECTIONS, 0));
    loop {
        let (stream, peer) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listen::accept(&listener) => accepted,
        };
        match places.take() {
            Some(seat) => {
                drop(connections.spawn(connection(stream, router.clone(), shutdown.clone(), seat)))
            }
            None => {
                if let Some(times) = FULL.happened() {
                    let limit = MAX_CONNECTIONS;
                    tracing::warn!(%peer, limit, times, "too many requests of operators: a \
                        connection is closed");
                }
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn connection(
    stream: TcpStream,
    router: Router,
    shutdown: CancellationToken,
    seat: ConnectionSlot,
) {
    let (seat, asked) = (Arc::new(seat), Arc::new(AtomicBool::new(false)));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT);
    builder.max_buf_size(MAX_HEADER_BYTES).max_headers(MAX_HEADERS);
    let answering = (Arc::clone(&seat), Arc::clone(&asked));
    let service = tower::service_fn(move |request| {
        let (router, seat) = (router.clone(), Arc::clone(&answering.0));
        answering.1.store(true, Ordering::Relaxed);
        async move {
            seat.keep();
            let answer = router.oneshot(request).await;
            seat.loosen();
            answer
        }
    });
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = pin!(connection);
    let life = tokio::time::timeout(CONNECTION_LIFETIME, async {
        tokio::select! {
            ended = &mut connection => return ended,
            () = seat.displaced() => return Ok(()),
            () = shutdown.cancelled() => {}
        }
        // The library waits for a head that has begun to arrive, even during a shutdown.
        if !asked.load(Ordering::Relaxed) {
            return Ok(());
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    });
    if let Ok(Err(error)) = life.await {
        tracing::debug!(%error, "a connection of an operator ended");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn heads_are_bounded_and_the_shutdown_waits_for_nobody_who_is_idle() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let router = Router::new().route("/", get(|| async { "ok" }));
        let serving = tokio::spawn(serve(listener, router, shutdown.clone()));
        let say = async |text: String| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            let mut answer = vec![0; 64];
            let read = tokio::time::timeout(LONG, stream.read(&mut answer)).await.unwrap().unwrap();
            (String::from_utf8_lossy(&answer[..read]).into_owned(), stream)
        };
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nho").await.unwrap();
        let (good, _idle) = say("GET / HTTP/1.1\r\nhost: t\r\n\r\n".to_owned()).await;
        assert!(good.starts_with("HTTP/1.1 200 "), "{good}");
        let (many, _) = say(format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101))).await;
        assert!(many.starts_with("HTTP/1.1 431 "), "{many}");
        let (long, _) =
            say(format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(MAX_HEADER_BYTES))).await;
        assert!(long.starts_with("HTTP/1.1 431 "), "{long}");
        shutdown.cancel();
        tokio::time::timeout(HEADER_READ_TIMEOUT / 2, serving).await.expect("it ends").unwrap();
    }

    #[tokio::test]
    async fn idle_connections_keep_nobody_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let router = Router::new().route("/", get(|| async { "ok" }));
        let serving = tokio::spawn(serve(listener, router, shutdown.clone()));
        let mut idle = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        for _ in 0..3 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
            let mut answer = [0; 12];
            tokio::time::timeout(LONG, stream.read_exact(&mut answer))
                .await
                .expect("it is answered")
                .unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200");
            idle.push(stream);
        }
        let oldest = tokio::time::timeout(HEADER_READ_TIMEOUT / 2, idle[0].read(&mut [0; 1])).await;
        assert!(matches!(oldest, Ok(Ok(0) | Err(_))), "the oldest had to go: {oldest:?}");
        shutdown.cancel();
        tokio::time::timeout(LONG, serving).await.expect("it ends").unwrap();
    }
}
