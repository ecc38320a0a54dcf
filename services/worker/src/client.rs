//! One exchange over HTTP/1.1: a connection from the pool or by the dialer, the request, the head of the answer, its body.

use std::{sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1::Builder},
};
use hyper_util::rt::TokioIo;
use outrider_model::Result;
use outrider_proto::dispatch::AttemptOutcome;
use outrider_rpc::{DialError, Dialer};
use outrider_telemetry::catalogue::worker::{CONNECT_SECONDS, RESPONSE_SECONDS};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;

use crate::{
    bounds::WireBounds,
    destination::Destination,
    head::HeadBounds,
    heads::Heads,
    measure::{self, Used},
    options::Options,
    pool::{Connection, Pool},
    request::Body,
    response::{self, Answer, Bounds, End},
    tls::{self, Secure},
    wire::{Metered, Watch},
};

/// How long a connection may take to be ready again after its answer was read.
const READY_WITHIN: Duration = Duration::from_secs(1);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The egress cannot be reached: nothing was tried.
    EgressUnavailable,
    /// An attempt failed. The text is for the owner of the endpoint and names no address.
    Attempt(AttemptOutcome, String),
}

impl Failure {
    fn attempt(outcome: AttemptOutcome, message: impl Into<String>) -> Self {
        Self::Attempt(outcome, message.into())
    }
}

/// As much of an answer as came before its body.
enum Head {
    Whole(Response<Incoming>),
    /// The status line, and then not the rest.
    Status(u16, End),
}

/// What a request on a connection came to.
enum Asked {
    Answered(Head),
    /// Nothing of the request went out.
    Unsent(Failure),
    Failed(Failure),
}

/// Makes exchanges.
pub(crate) struct Client {
    dialer: Arc<dyn Dialer>,
    tls: TlsConnector,
    http: Builder,
    pool: Arc<Pool>,
    bounds: Bounds,
    wire: WireBounds,
    heads: HeadBounds,
}

impl Client {
    pub(crate) fn new(options: &Options, dialer: Arc<dyn Dialer>) -> Result<Self> {
        let mut http = Builder::new();
        // The buffer alone bounds heads only roughly: it may hold more when the last read brought it.
        http.max_buf_size(options.response_head_bytes).max_header_size(options.response_head_bytes);
        let bounds = Bounds::new(options);
        Ok(Self {
            dialer,
            tls: tls::connector(&options.extra_roots)?,
            http,
            pool: Arc::new(Pool::new(options.pool_idle_per_host, options.pool_idle_total, options.pool_idle_timeout)),
            bounds,
            wire: options.wire,
            heads: HeadBounds { interim: options.wire.interim_answers, bytes: options.response_head_bytes, kept: bounds },
        })
    }

    /// Idle connections that are kept.
    pub(crate) fn idle(&self) -> usize {
        self.pool.idle()
    }

    /// Closes connections that were idle for too long.
    pub(crate) fn sweep(&self) {
        self.pool.sweep();
    }

    /// One exchange within one deadline, from the dial to the end of the answer. `request` makes the request, and is called
    /// when there is a connection to send it on, so that it is signed at that moment.
    pub(crate) async fn exchange<F>(&self, destination: &Destination, deadline: Instant, request: F) -> Result<Answer, Failure>
    where
        F: Fn() -> Request<Body> + Send + Sync,
    {
        let (connection, head) = self.head(destination, deadline, &request).await?;
        let answer = self.read(&connection, head, deadline).await;
        if answer.end == End::Whole {
            self.keep(destination, connection);
        }
        Ok(answer)
    }

    /// Sends, and waits for the head of the answer.
    ///
    /// A connection from the pool may have been closed by the endpoint while it was idle. When that is seen before anything of
    /// the request was written, hyper gives the request back, and it goes out once more on a new connection. In all other cases
    /// the endpoint may have got it: that is an attempt, and it is dispatch that decides whether there is another.
    async fn head<F>(&self, destination: &Destination, deadline: Instant, request: &F) -> Result<(Connection, Head), Failure>
    where
        F: Fn() -> Request<Body> + Send + Sync,
    {
        if let Some(mut connection) = self.pool.take(&destination.origin) {
            match self.ask(&mut connection, request(), deadline).await {
                Asked::Unsent(_) => {}
                Asked::Failed(failure) => return Err(failure),
                Asked::Answered(head) => {
                    measure::connection(Used::Again);
                    return Ok((connection, head));
                }
            }
        }
        let timed = CONNECT_SECONDS.start_timer();
        let mut connection = timeout_at(deadline, self.connect(destination)).await.map_err(|_| timed_out())??;
        timed.observe_duration();
        measure::connection(Used::First);
        match self.ask(&mut connection, request(), deadline).await {
            Asked::Answered(head) => Ok((connection, head)),
            Asked::Unsent(failure) | Asked::Failed(failure) => Err(failure),
        }
    }

    /// Sends a request on a connection. Once the status line of an answer has come, it decides, whatever becomes of the rest.
    async fn ask(&self, connection: &mut Connection, request: Request<Body>, deadline: Instant) -> Asked {
        connection.begin();
        let (failure, end) = match timeout_at(deadline, answered(connection, request)).await {
            Ok(Ok(response)) => return Asked::Answered(Head::Whole(response)),
            Ok(Err(mut error)) => {
                let unsent = error.take_message().is_some();
                let failure = self.broken(&error.into_error(), connection);
                if unsent {
                    return Asked::Unsent(failure);
                }
                (failure, End::Dropped)
            }
            Err(_) => (timed_out(), End::TimedOut),
        };
        match connection.watch.status() {
            Some(status) => Asked::Answered(Head::Status(status, end)),
            None => Asked::Failed(failure),
        }
    }

    /// Reads the rest of an answer.
    async fn read(&self, connection: &Connection, head: Head, deadline: Instant) -> Answer {
        match head {
            Head::Whole(response) => response::read(response, connection.watch.take_fields(), self.bounds, deadline).await,
            Head::Status(status, end) => Answer::of_status(status, end),
        }
    }

    async fn connect(&self, destination: &Destination) -> Result<Connection, Failure> {
        let stream = self.dialer.dial(&destination.host, destination.port).await.map_err(undialled)?;
        // Small requests must not wait for acknowledgements; where it cannot be set they do.
        let _ = stream.tcp().set_nodelay(true);
        let (stream, watch) = self.metered(stream);
        match &destination.server_name {
            None => self.open(stream, watch).await,
            Some(name) => {
                let stream = self.tls.connect(name.clone(), stream).await;
                let stream =
                    stream.map_err(|error| Failure::attempt(AttemptOutcome::TlsFailed, tls::explain(&error, &self.wire)))?;
                self.open(Secure::new(stream), watch).await
            }
        }
    }

    fn metered<S>(&self, stream: S) -> (Metered<S>, Watch) {
        let watch = Watch::default();
        (Metered::new(stream, watch.clone(), self.wire), watch)
    }

    /// One exchange over a plain stream, which is dropped after it.
    pub(crate) async fn exchange_on<S>(&self, stream: S, deadline: Instant, request: Request<Body>) -> Result<Answer, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (stream, watch) = self.metered(stream);
        let mut connection = self.open(stream, watch).await?;
        match self.ask(&mut connection, request, deadline).await {
            Asked::Answered(head) => Ok(self.read(&connection, head, deadline).await),
            Asked::Unsent(failure) | Asked::Failed(failure) => Err(failure),
        }
    }

    async fn open<S>(&self, stream: S, watch: Watch) -> Result<Connection, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = Heads::new(stream, watch.clone(), self.heads);
        let (sender, connection) = self.http.handshake::<_, Body>(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        let task = tokio::spawn(async move {
            // The exchange that was under way sees the error; between exchanges nobody needs it.
            let _ = connection.await;
        });
        Ok(Connection::new(sender, watch, task.abort_handle()))
    }

    /// What an error of an open connection means: what was found on the wire goes before what the HTTP library says.
    fn broken(&self, error: &hyper::Error, connection: &Connection) -> Failure {
        match connection.watch.fault() {
            Some(fault) => Failure::attempt(AttemptOutcome::BadResponse, fault.explain(&self.wire)),
            None => broken(error),
        }
    }

    /// Back to the pool, once the connection's task has seen the end of the exchange too. An endpoint may answer before it has
    /// read the whole request, and never read the rest: such a connection is dropped.
    fn keep(&self, destination: &Destination, mut connection: Connection) {
        if !connection.watch.is_intact() {
            return;
        }
        if connection.sender.is_ready() {
            connection.end();
            self.pool.put(&destination.origin, connection);
            return;
        }
        let (pool, origin) = (Arc::clone(&self.pool), Arc::clone(&destination.origin));
        tokio::spawn(async move {
            if let Ok(Ok(())) = tokio::time::timeout(READY_WITHIN, connection.sender.ready()).await {
                connection.end();
                pool.put(&origin, connection);
            }
        });
    }
}

/// Sends, and waits for the head of the answer.
async fn answered(
    connection: &mut Connection,
    request: Request<Body>,
) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
    let timed = RESPONSE_SECONDS.start_timer();
    let answer = connection.sender.try_send_request(request).await;
    if answer.is_ok() {
        timed.observe_duration();
    } else {
        timed.stop_and_discard();
    }
    answer
}

fn timed_out() -> Failure {
    Failure::attempt(AttemptOutcome::TimedOut, "the endpoint did not answer in time")
}

fn undialled(error: DialError) -> Failure {
    let outcome = match error {
        DialError::EgressUnavailable => return Failure::EgressUnavailable,
        DialError::Refused { .. } => AttemptOutcome::AddressRefused,
        DialError::NotResolved => AttemptOutcome::NameNotResolved,
        DialError::ConnectFailed => AttemptOutcome::ConnectionFailed,
    };
    Failure::attempt(outcome, error.to_string())
}

/// What an error of an open connection means.
fn broken(error: &hyper::Error) -> Failure {
    let (outcome, message) = if error.is_parse() {
        (AttemptOutcome::BadResponse, "the answer is not HTTP/1.1")
    } else if error.is_incomplete_message() {
        (AttemptOutcome::ConnectionFailed, "the connection was closed before the answer")
    } else {
        (AttemptOutcome::ConnectionFailed, "the connection broke before the answer")
    };
    Failure::attempt(outcome, message)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use bytes::Bytes;
    use http_body_util::Full;

    use super::*;
    use crate::{
        destination::Destinations,
        tests::{
            bench::{PATIENCE, entry, quick},
            fakes::Loopback,
            receiver::{Receiver, Reply},
        },
    };

    fn request() -> Request<Body> {
        Request::post("/").header("content-length", 2).body(Full::new(Bytes::from_static(b"{}"))).unwrap()
    }

    // On one thread: nothing else runs between the end of the idle connection and the exchange that takes it.
    #[tokio::test]
    async fn a_request_that_was_never_sent_goes_out_on_a_new_connection() {
        let receiver = Receiver::start(Reply::status("200 OK")).await;
        let dialer = Arc::new(Loopback::default());
        let client = Client::new(&quick(), dialer.clone()).unwrap();
        let entry = Arc::new(entry(&format!("http://hooks.example:{}/", receiver.port), |_| {}));
        let destination = Destinations::new(1, http::HeaderValue::from_static("t")).get(&entry).unwrap();
        let (near, far) = tokio::io::duplex(1024);
        let mut idle = client.open(near, Watch::default()).await.unwrap();
        idle.sender.ready().await.unwrap();
        client.pool.put(&destination.origin, idle);

        drop(far);
        let answer = client.exchange(&destination, Instant::now() + PATIENCE, request).await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!((receiver.count(), dialer.dials.load(Ordering::SeqCst)), (1, 1));
    }

    #[tokio::test]
    async fn a_request_that_may_have_been_sent_is_not_sent_again() {
        use tokio::io::AsyncReadExt;
        let dialer = Arc::new(Loopback::default());
        let client = Client::new(&quick(), dialer.clone()).unwrap();
        let destinations = Destinations::new(1, http::HeaderValue::from_static("t"));
        let destination = destinations.get(&Arc::new(entry("http://hooks.example/", |_| {}))).unwrap();
        let (near, mut far) = tokio::io::duplex(1024);
        let mut idle = client.open(near, Watch::default()).await.unwrap();
        idle.sender.ready().await.unwrap();
        client.pool.put(&destination.origin, idle);

        let reading = tokio::spawn(async move { far.read_u8().await });
        let failure = client.exchange(&destination, Instant::now() + PATIENCE, request).await.unwrap_err();
        assert!(matches!(failure, Failure::Attempt(AttemptOutcome::ConnectionFailed, _)), "{failure:?}");
        assert_eq!(reading.await.unwrap().unwrap(), b'P');
        assert_eq!(dialer.dials.load(Ordering::SeqCst), 0);
    }
}
