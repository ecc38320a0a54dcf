//! A server on the loopback that receives webhooks, records them, and gives configured answers.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use anyhow::Result;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, task::JoinHandle};

/// The answer to one request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Immediately, with this status and a short body.
    Status(u16),
    /// Immediately, with a status, headers and a body.
    Full(u16, Vec<(&'static str, String)>, Bytes),
    /// With a status, after some time.
    After(Duration, u16),
    /// Never.
    Hang,
    /// Closes the connection.
    Close,
}

/// A received request.
#[derive(Debug, Clone)]
pub struct Received {
    /// The path without the query.
    pub path: String,
    /// The query without the question mark. Empty if there is none.
    pub query: String,
    /// The method.
    pub method: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body. Empty in a receiver that only counts.
    pub body: Bytes,
    /// When the body was complete.
    pub at: Instant,
    /// The same time on the wall clock.
    pub time: SystemTime,
}

impl Received {
    /// Returns a header's value, or an empty text.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Returns the event's id as the receiver sees it.
    #[must_use]
    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }
}

#[derive(Debug, Default)]
struct PathState {
    /// The answers to the first, second, … request with the same webhook-id. The last one repeats.
    /// Empty means 200.
    answers: Vec<Answer>,
    counts: HashMap<String, usize>,
    received: Vec<Received>,
    in_flight: usize,
    peak: usize,
}

#[derive(Debug)]
struct State {
    keep: bool,
    paths: Mutex<HashMap<String, PathState>>,
    /// Counted on all paths together, so that a benchmark can read it at any moment, however many
    /// paths there are.
    distinct: AtomicUsize,
    duplicates: AtomicUsize,
}

impl State {
    fn paths(&self) -> MutexGuard<'_, HashMap<String, PathState>> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server. Dropping it ends it.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    state: Arc<State>,
    server: Mutex<JoinHandle<()>>,
}

impl Receiver {
    /// Starts a receiver that records everything.
    pub async fn start() -> Result<Self> {
        Self::launch(true).await
    }

    /// Starts a receiver for benchmarks, which only counts requests per webhook-id.
    pub async fn start_counting() -> Result<Self> {
        Self::launch(false).await
    }

    async fn launch(keep: bool) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            keep,
            paths: Mutex::default(),
            distinct: AtomicUsize::new(0),
            duplicates: AtomicUsize::new(0),
        });
        let server = Mutex::new(tokio::spawn(serve(listener, Arc::clone(&state))));
        Ok(Self { address, state, server })
    }

    /// Closes every connection and refuses new ones.
    pub fn leave(&self) {
        self.server().abort();
    }

    /// Listens again on the same address, and keeps earlier records.
    pub async fn come_back(&self) -> Result<()> {
        let listener = TcpListener::bind(self.address).await?;
        *self.server() = tokio::spawn(serve(listener, Arc::clone(&self.state)));
        Ok(())
    }

    fn server(&self) -> MutexGuard<'_, JoinHandle<()>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the URL of a path, which begins with a slash.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Sets the answers to the first, second, … request of each webhook-id on a path. The last one
    /// repeats.
    pub fn answer(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        self.state.paths().entry(path.to_owned()).or_default().answers =
            answers.into_iter().collect();
    }

    /// Returns all requests on a path, in the order of arrival.
    #[must_use]
    pub fn received(&self, path: &str) -> Vec<Received> {
        self.state.paths().get(path).map(|state| state.received.clone()).unwrap_or_default()
    }

    /// Takes the requests on a path that were not taken before, in the order of arrival. Counts do
    /// not change.
    #[must_use]
    pub fn take(&self, path: &str) -> Vec<Received> {
        self.state
            .paths()
            .get_mut(path)
            .map(|state| std::mem::take(&mut state.received))
            .unwrap_or_default()
    }

    /// Returns the requests on a path for one event.
    #[must_use]
    pub fn received_of(&self, path: &str, id: &str) -> Vec<Received> {
        self.received(path).into_iter().filter(|received| received.id() == id).collect()
    }

    /// Returns how often each webhook-id arrived on a path.
    #[must_use]
    pub fn counts(&self, path: &str) -> HashMap<String, usize> {
        self.state.paths().get(path).map(|state| state.counts.clone()).unwrap_or_default()
    }

    /// Returns how many different webhook-ids arrived on a path.
    #[must_use]
    pub fn distinct(&self, path: &str) -> usize {
        self.state.paths().get(path).map_or(0, |state| state.counts.len())
    }

    /// Returns how many requests arrived on a path, including repeated ones.
    #[must_use]
    pub fn total(&self, path: &str) -> usize {
        self.state.paths().get(path).map_or(0, |state| state.counts.values().sum())
    }

    /// Returns how many requests arrived on a path beyond the first of each webhook-id.
    #[must_use]
    pub fn duplicates(&self, path: &str) -> usize {
        self.state
            .paths()
            .get(path)
            .map_or(0, |state| state.counts.values().map(|count| count - 1).sum())
    }

    /// Returns the sum over all paths of different webhook-ids. This is cheap.
    #[must_use]
    pub fn distinct_on_all(&self) -> usize {
        self.state.distinct.load(Ordering::Relaxed)
    }

    /// Returns the sum over all paths of requests beyond the first of each webhook-id. This is
    /// cheap.
    #[must_use]
    pub fn duplicates_on_all(&self) -> usize {
        self.state.duplicates.load(Ordering::Relaxed)
    }

    /// Returns the highest number of requests that were open at once on a path.
    #[must_use]
    pub fn peak(&self, path: &str) -> usize {
        self.state.paths().get(path).map_or(0, |state| state.peak)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.leave();
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        stream.set_nodelay(true).ok();
        while connections.try_join_next().is_some() {}
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let service = service_fn(|request| handle(&state, request));
            // An error here means that the client left, or that the answer closes the connection.
            http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await
                .ok();
        });
    }
}

/// Ends the connection without an answer.
#[derive(Debug)]
struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed as told")
    }
}

impl std::error::Error for Closed {}

impl From<Infallible> for Closed {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Counts a request as open until it is dropped, because it was answered or the client left.
struct Open<'a>(&'a State, String);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if let Some(state) = self.0.paths().get_mut(&self.1) {
            state.in_flight -= 1;
        }
    }
}

async fn handle(
    state: &State,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Closed> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
        return Err(Closed);
    };
    let path = parts.uri.path().to_owned();
    let answer = record(state, &path, parts, body);
    let _open = Open(state, path);
    match answer {
        Answer::Status(status) => Ok(respond(status, &[], Bytes::from(format!("answer {status}")))),
        Answer::Full(status, headers, body) => Ok(respond(status, &headers, body)),
        Answer::After(time, status) => {
            tokio::time::sleep(time).await;
            Ok(respond(status, &[], Bytes::new()))
        }
        Answer::Hang => std::future::pending().await,
        Answer::Close => Err(Closed),
    }
}

fn record(state: &State, path: &str, parts: http::request::Parts, body: Bytes) -> Answer {
    let mut paths = state.paths();
    if !paths.contains_key(path) {
        paths.insert(path.to_owned(), PathState::default());
    }
    let entry = paths.get_mut(path).expect("it was inserted");
    entry.in_flight += 1;
    entry.peak = entry.peak.max(entry.in_flight);
    let id = parts
        .headers
        .get("webhook-id")
        .and_then(|id| id.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let count = entry.counts.entry(id).or_default();
    *count += 1;
    if *count == 1 { &state.distinct } else { &state.duplicates }.fetch_add(1, Ordering::Relaxed);
    let answer =
        entry.answers.get((*count - 1).min(entry.answers.len().saturating_sub(1))).cloned();
    if state.keep {
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let (method, headers) = (parts.method.to_string(), parts.headers);
        entry.received.push(Received {
            path: path.to_owned(),
            query,
            method,
            headers,
            body,
            at: Instant::now(),
            time: SystemTime::now(),
        });
    }
    answer.unwrap_or(Answer::Status(200))
}

fn respond(status: u16, headers: &[(&'static str, String)], body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        if let Ok(value) = value.parse() {
            response.headers_mut().append(*name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Rest;

    #[tokio::test]
    async fn answers_as_told_per_event_and_counts() {
        let receiver = Receiver::start().await.unwrap();
        receiver.answer("/a", [Answer::Status(500), Answer::Close, Answer::Status(201)]);
        let client = Rest::new(&receiver.url(""), None);
        let post = async || client.send(http::Method::POST, "/a", "body").await;
        assert_eq!(post().await.unwrap().status, 500);
        assert!(post().await.is_err());
        assert_eq!(post().await.unwrap().status, 201);
        assert_eq!(post().await.unwrap().status, 201);
        assert_eq!(
            (
                receiver.distinct("/a"),
                receiver.duplicates("/a"),
                receiver.total("/a"),
                receiver.peak("/a")
            ),
            (1, 3, 4, 1)
        );
        assert!(client.send(http::Method::POST, "/b", "body").await.is_ok());
        assert_eq!((receiver.distinct_on_all(), receiver.duplicates_on_all()), (2, 3));
        assert_eq!(receiver.received("/a")[3].body, "body");
    }
}
