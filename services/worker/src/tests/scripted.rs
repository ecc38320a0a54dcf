//! Endpoints that follow a script after they have read a request, and the results of deliveries to
//! them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use outrider_model::{AttemptOutcome, AttemptResult};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::server::TlsStream;

use super::{
    bench::{Bench, Shown, quick},
    tls::Authority,
};
use crate::Options;

pub(super) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
pub(super) const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
/// The timeout of the endpoints here. Every bound is reached long before.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What an endpoint does after it has read a request.
#[derive(Clone)]
pub(super) enum Act {
    Send(String),
    /// Sends the same bytes until the other side closes.
    Repeat(&'static str),
    /// Sends one byte after another, with a moment between them, and then goes to the next act.
    Drip(String),
    Hang,
    /// Waits until what was sent has arrived.
    Pause,
    Close,
    /// Ends with a reset.
    Reset,
    /// Sends bytes below TLS that are not TLS.
    Garbage(&'static [u8]),
    /// Sends requests to change the keys of TLS.
    KeyUpdates(usize),
}

/// A connection of an endpoint, plain or with TLS.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send {
    fn tcp(&mut self) -> &mut TcpStream;
    fn update_keys(&mut self) {}
}

impl Wire for TcpStream {
    fn tcp(&mut self) -> &mut TcpStream {
        self
    }
}

impl Wire for TlsStream<TcpStream> {
    fn tcp(&mut self) -> &mut TcpStream {
        self.get_mut().0
    }

    fn update_keys(&mut self) {
        self.get_mut().1.refresh_traffic_keys().unwrap();
    }
}

pub(super) struct Hostile {
    pub(super) port: u16,
    requests: Arc<AtomicUsize>,
}

impl Hostile {
    pub(super) async fn start(acts: Vec<Act>) -> Self {
        Self::listen(acts, None).await
    }

    async fn listen(acts: Vec<Act>, tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hostile =
            Self { port: listener.local_addr().unwrap().port(), requests: Arc::default() };
        let requests = Arc::clone(&hostile.requests);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let (acts, requests, tls) = (acts.clone(), Arc::clone(&requests), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &acts, &requests).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, &acts, &requests).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        hostile
    }

    pub(super) fn count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// Answers every request. Returns `None` when the connection is over.
async fn serve<S: Wire>(mut stream: S, acts: &[Act], requests: &AtomicUsize) -> Option<()> {
    loop {
        let mut request = Vec::new();
        // Requests here are small, and their bodies are "{}".
        while !request.ends_with(b"\r\n\r\n{}") {
            if stream.read_buf(&mut request).await.ok()? == 0 {
                return None;
            }
        }
        requests.fetch_add(1, Ordering::SeqCst);
        for act in acts {
            perform(&mut stream, act).await?;
        }
    }
}

async fn perform<S: Wire>(stream: &mut S, act: &Act) -> Option<()> {
    match act {
        Act::Send(bytes) => stream.write_all(bytes.as_bytes()).await.ok()?,
        Act::Repeat(bytes) => {
            let many = bytes.repeat(4096 / bytes.len() + 1);
            while stream.write_all(many.as_bytes()).await.is_ok() {}
            return None;
        }
        Act::Drip(bytes) => {
            for byte in bytes.bytes() {
                stream.write_all(&[byte]).await.ok()?;
                stream.flush().await.ok()?;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        Act::Hang => while stream.read_u8().await.is_ok() {},
        Act::Pause => tokio::time::sleep(Duration::from_millis(100)).await,
        Act::Close => return None,
        Act::Reset => {
            stream.tcp().set_zero_linger().unwrap();
            return None;
        }
        Act::Garbage(bytes) => stream.tcp().write_all(bytes).await.ok()?,
        Act::KeyUpdates(count) => {
            for _ in 0..*count {
                stream.update_keys();
            }
        }
    }
    stream.flush().await.ok()
}

/// Delivers once to an endpoint that does this.
pub(super) async fn deliver(acts: Vec<Act>) -> AttemptResult {
    let hostile = Hostile::start(acts).await;
    // So few reads that the pieces of a test soon reach the bound.
    let bench = Bench::start(Options { response_wire_reads: 64, ..quick() });
    let result = attempt(&bench, &format!("http://hooks.example:{}/", hostile.port)).await;
    bench.stop().await;
    assert_eq!(hostile.count(), 1, "{result:?}");
    result
}

pub(super) async fn attempt(bench: &Bench, url: &str) -> AttemptResult {
    bench.push(bench.endpoint_with(url, |endpoint| endpoint.spec.limits.timeout = TIMEOUT));
    bench.attempt().await
}

pub(super) fn is_soon(result: &AttemptResult) -> bool {
    result.duration.as_micros() < TIMEOUT.as_micros() * 9 / 10
}

pub(super) fn send(text: impl Into<String>) -> Act {
    Act::Send(text.into())
}

/// Asserts a bad response with this text, long before the timeout.
pub(super) async fn is_bad(acts: Vec<Act>, message: &str) {
    let result = deliver(acts).await;
    assert_eq!((result.outcome, result.status()), (AttemptOutcome::BadResponse, 0), "{result:?}");
    assert_eq!(result.error(), message);
    assert!(is_soon(&result), "{message} after {} µs", result.duration.as_micros());
}

/// Asserts that the delivery succeeded with one attempt, whatever followed the head of a 2xx
/// answer.
pub(super) async fn succeeds(acts: Vec<Act>) -> AttemptResult {
    let result = deliver(acts).await;
    assert_eq!((result.outcome, result.status()), (AttemptOutcome::Succeeded, 200), "{result:?}");
    assert!(result.response_truncated && result.error().is_empty(), "{result:?}");
    result
}

pub(super) async fn deliver_by_tls(
    authority: &Authority,
    tickets: usize,
    acts: Vec<Act>,
) -> AttemptResult {
    let hostile = Hostile::listen(
        acts,
        Some(authority.acceptor(|config| config.send_tls13_tickets = tickets)),
    )
    .await;
    let bench = Bench::trusting(vec![authority.root.clone()]);
    let result = attempt(&bench, &format!("https://hooks.example:{}/", hostile.port)).await;
    bench.stop().await;
    assert_eq!(hostile.count(), 1, "{result:?}");
    result
}
