//! One exchange over HTTP/1.1: a connection from the pool or by the dialer, the request, the head
//! of the answer, its body.

use std::{error::Error as _, io, sync::Arc, time::Duration};

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
    keeping::{Met, Timeouts},
    look::Shown,
    measure::{self, Used},
    options::{Given, Options},
    phase::Phase,
    pool::{Connection, Pool, Reused},
    request::Body,
    response::{self, Answer, Bounds, End},
    tls::{self, Secure},
    told,
    wire::{Metered, Watch},
};

/// How long a connection may take to be ready again after its answer was read.
const READY_WITHIN: Duration = Duration::from_secs(1);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The egress cannot be reached: nothing was tried.
    EgressUnavailable,
    /// The time for the exchange was over.
    TimedOut(Phase),
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
    /// The connection ended before the first byte of an answer.
    Ended(Failure),
    Failed(Failure),
}

/// How an exchange went.
#[derive(Debug)]
pub(crate) struct Exchanged {
    pub(crate) result: Result<Answer, Failure>,
    /// The request went out twice: the endpoint may have got it twice.
    pub(crate) resent: bool,
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
    pub(crate) fn new(options: &Options, given: &Given, dialer: Arc<dyn Dialer>) -> Result<Self> {
        let mut http = Builder::new();
        // The buffer alone bounds heads only roughly: it may hold more when the last read brought
        // it.
        http.max_buf_size(options.response_head_bytes).max_header_size(options.response_head_bytes);
        let bounds = Bounds::new(options);
        let timeouts =
            Timeouts { idle: options.pool_idle_timeout, told: options.pool_told_timeout };
        Ok(Self {
            dialer,
            tls: tls::connector(&given.extra_roots, options.pool_idle_total)?,
            http,
            pool: Arc::new(Pool::new(
                options.pool_idle_per_host,
                options.pool_idle_total,
                timeouts,
            )),
            bounds,
            wire: options.wire(),
            heads: HeadBounds {
                interim: options.response_interim_answers,
                bytes: options.response_head_bytes,
                kept: bounds,
            },
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

    /// One exchange within one deadline, from the dial to the end of the answer. `request` makes
    /// the request, and is called when there is a connection to send it on, so that it is signed at
    /// that moment.
    pub(crate) async fn exchange<F>(
        &self,
        destination: &Destination,
        deadline: Instant,
        request: F,
    ) -> Exchanged
    where
        F: Fn() -> Request<Body> + Send + Sync,
    {
        let mut first = None;
        let came = match self.ask_reused(destination, deadline, &request, &mut first).await {
            Some(came) => came,
            None => self.ask_new(destination, deadline, &request).await,
        };
        let resent = first.is_some();
        let result = match (came, first) {
            (Ok((connection, head)), _) => {
                let answer = self.read(&connection, head, deadline).await;
                if answer.end == End::Whole {
                    self.keep(destination, connection, answer.keep_alive());
                }
                Ok(answer)
            }
            // The request may have arrived the first time: that was an attempt, and nothing was
            // sent again.
            (Err(Failure::EgressUnavailable), Some(failure)) => {
                return Exchanged { result: Err(failure), resent: false };
            }
            (Err(failure), _) => Err(failure),
        };
        if resent {
            measure::resent();
        }
        Exchanged { result, resent }
    }

    /// Sends on a connection from the pool, and waits for the head of the answer; none when it is
    /// to be sent on a new one.
    ///
    /// The endpoint may have closed the connection while it was idle. When that is seen before
    /// anything of the request was written, hyper gives the request back. When the connection ends
    /// before the first byte of an answer, the endpoint has most likely not seen it: it is sent
    /// once more, and what the first sending came to is in `first`.
    async fn ask_reused<F>(
        &self,
        destination: &Destination,
        deadline: Instant,
        request: &F,
        first: &mut Option<Failure>,
    ) -> Option<Result<(Connection, Head), Failure>>
    where
        F: Fn() -> Request<Body> + Send + Sync,
    {
        let Reused { mut connection, idle } = self.pool.take(destination.met())?;
        match self.ask(&mut connection, request(), deadline).await {
            Asked::Unsent(_) => None,
            Asked::Ended(failure) => {
                *first = Some(failure);
                self.pool.met_its_end(destination.met(), idle);
                None
            }
            Asked::Failed(failure) => Some(Err(failure)),
            Asked::Answered(head) => {
                measure::connection(Used::Again);
                Some(Ok((connection, head)))
            }
        }
    }

    /// Sends on a new connection, and waits for the head of the answer.
    async fn ask_new<F>(
        &self,
        destination: &Destination,
        deadline: Instant,
        request: &F,
    ) -> Result<(Connection, Head), Failure>
    where
        F: Fn() -> Request<Body> + Send + Sync,
    {
        let timed = CONNECT_SECONDS.start_timer();
        let mut connection = self.connect(destination, deadline).await?;
        timed.observe_duration();
        measure::connection(Used::First);
        match self.ask(&mut connection, request(), deadline).await {
            Asked::Answered(head) => Ok((connection, head)),
            Asked::Unsent(failure) | Asked::Ended(failure) | Asked::Failed(failure) => Err(failure),
        }
    }

    /// Sends a request on a connection. Once the status line of an answer has come, it decides,
    /// whatever becomes of the rest.
    async fn ask(
        &self,
        connection: &mut Connection,
        request: Request<Body>,
        deadline: Instant,
    ) -> Asked {
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
            Err(_) => (Failure::TimedOut(Phase::of(&connection.watch)), End::TimedOut),
        };
        let watch = &connection.watch;
        match watch.status() {
            Some(status) => Asked::Answered(Head::Status(status, end)),
            None if end == End::Dropped && watch.fault().is_none() && !watch.heard() => {
                Asked::Ended(failure)
            }
            None => Asked::Failed(failure),
        }
    }

    /// Reads the rest of an answer.
    async fn read(&self, connection: &Connection, head: Head, deadline: Instant) -> Answer {
        match head {
            Head::Whole(response) => {
                response::read(response, connection.watch.take_fields(), self.bounds, deadline)
                    .await
            }
            Head::Status(status, end) => Answer::of_status(status, end),
        }
    }

    async fn connect(
        &self,
        destination: &Destination,
        deadline: Instant,
    ) -> Result<Connection, Failure> {
        let late = |phase| move |_| Failure::TimedOut(phase);
        let dialled =
            timeout_at(deadline, self.dialer.dial(&destination.host, destination.port)).await;
        let stream = dialled.map_err(late(Phase::Connecting))?.map_err(undialled)?;
        // Small requests must not wait for acknowledgements; where it cannot be set they do.
        let _ = stream.tcp().set_nodelay(true);
        let stream = Shown::new(stream);
        let look = stream.look();
        let (stream, watch) = self.metered(stream);
        let connection = match &destination.server_name {
            None => self.open(stream, watch).await,
            Some(name) => {
                let failed = |error| {
                    Failure::attempt(AttemptOutcome::TlsFailed, told::handshake(&error, &self.wire))
                };
                let secured = timeout_at(deadline, self.tls.connect(name.clone(), stream)).await;
                let stream = secured.map_err(late(Phase::Securing))?.map_err(failed)?;
                self.open(Secure::new(stream), watch).await
            }
        };
        connection.map(|connection| connection.with_look(look))
    }

    fn metered<S>(&self, stream: S) -> (Metered<S>, Watch) {
        let watch = Watch::default();
        (Metered::new(stream, watch.clone(), self.wire), watch)
    }

    /// One exchange over a plain stream, which is dropped after it.
    pub(crate) async fn exchange_on<S>(
        &self,
        stream: S,
        deadline: Instant,
        request: Request<Body>,
    ) -> Result<Answer, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (stream, watch) = self.metered(stream);
        let mut connection = self.open(stream, watch).await?;
        match self.ask(&mut connection, request, deadline).await {
            Asked::Answered(head) => Ok(self.read(&connection, head, deadline).await),
            Asked::Unsent(failure) | Asked::Ended(failure) | Asked::Failed(failure) => Err(failure),
        }
    }

    async fn open<S>(&self, stream: S, watch: Watch) -> Result<Connection, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = Heads::new(stream, watch.clone(), self.heads);
        let (sender, connection) = self
            .http
            .handshake::<_, Body>(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        let ending = watch.clone();
        let task = tokio::spawn(async move {
            // The exchange that was under way sees the error; between exchanges nobody needs it.
            let _ = connection.await;
            ending.end();
        });
        Ok(Connection::new(sender, watch, task.abort_handle()))
    }

    /// What an error of an open connection means: what was found on the wire goes before what the
    /// HTTP library says.
    fn broken(&self, error: &hyper::Error, connection: &Connection) -> Failure {
        match connection.watch.fault() {
            Some(fault) => Failure::attempt(AttemptOutcome::BadResponse, fault.explain(&self.wire)),
            None => broken(error),
        }
    }

    /// Back to the pool, once the connection's task has seen the end of the exchange too. An
    /// endpoint may answer before it has read the whole request, and never read the rest: such a
    /// connection is dropped.
    fn keep(&self, destination: &Destination, mut connection: Connection, told: Option<Duration>) {
        if !connection.watch.is_intact() {
            return;
        }
        if connection.sender.is_ready() {
            connection.end();
            self.pool.put(destination.met(), connection, told);
            return;
        }
        let (pool, origin, by) = (
            Arc::clone(&self.pool),
            Arc::clone(&destination.origin),
            destination.entry.organization,
        );
        tokio::spawn(async move {
            if let Ok(Ok(())) = tokio::time::timeout(READY_WITHIN, connection.sender.ready()).await
            {
                connection.end();
                pool.put(Met { origin: &origin, by }, connection, told);
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

fn undialled(error: DialError) -> Failure {
    let outcome = match error {
        DialError::EgressUnavailable => return Failure::EgressUnavailable,
        DialError::Refused { .. } => AttemptOutcome::AddressRefused,
        DialError::NotResolved(_) => AttemptOutcome::NameNotResolved,
        DialError::ConnectFailed(_) => AttemptOutcome::ConnectionFailed,
    };
    Failure::attempt(outcome, error.to_string())
}

/// What an error of an open connection means.
fn broken(error: &hyper::Error) -> Failure {
    if let Some(told) = told::alert_after(error) {
        return Failure::attempt(AttemptOutcome::TlsFailed, told);
    }
    let (outcome, message) = if error.is_parse() {
        (AttemptOutcome::BadResponse, "the answer is not HTTP/1.1")
    } else if error.is_incomplete_message() {
        (AttemptOutcome::ConnectionFailed, "the connection was closed before the answer")
    } else {
        (
            AttemptOutcome::ConnectionFailed,
            match io_kind(error) {
                Some(io::ErrorKind::ConnectionReset) => {
                    "the endpoint reset the connection before the answer"
                }
                Some(io::ErrorKind::TimedOut) => {
                    "the endpoint did not answer any more: it, or the way to it, is gone"
                }
                Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
                    "the endpoint was not reachable any more before the answer"
                }
                _ => "the connection broke before the answer",
            },
        )
    };
    Failure::attempt(outcome, message)
}

/// The kind of the error of IO in an error of the HTTP library.
fn io_kind(error: &hyper::Error) -> Option<io::ErrorKind> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        next = error.source();
    }
    None
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
        Request::post("/")
            .header("content-length", 2)
            .body(Full::new(Bytes::from_static(b"{}")))
            .unwrap()
    }

    // On one thread: nothing else runs between the end of the idle connection and the exchange that
    // takes it.
    #[tokio::test]
    async fn a_request_that_was_never_sent_goes_out_on_a_new_connection() {
        let receiver = Receiver::start(Reply::status("200 OK")).await;
        let dialer = Arc::new(Loopback::default());
        let client = Client::new(&quick(), &Given::default(), dialer.clone()).unwrap();
        let entry = Arc::new(entry(&format!("http://hooks.example:{}/", receiver.port), |_| {}));
        let destination =
            Destinations::new(1, http::HeaderValue::from_static("t")).get(&entry).unwrap();
        let (near, far) = tokio::io::duplex(1024);
        let mut idle = client.open(near, Watch::default()).await.unwrap();
        idle.sender.ready().await.unwrap();
        client.pool.put(destination.met(), idle, None);

        drop(far);
        let exchanged = client.exchange(&destination, Instant::now() + PATIENCE, request).await;
        assert_eq!((exchanged.result.unwrap().status, exchanged.resent), (200, false));
        assert_eq!((receiver.count(), dialer.dials.load(Ordering::SeqCst)), (1, 1));
    }

    /// A client with an idle connection whose other side reads a byte of the request, answers with
    /// these, and closes; its destination is at this port.
    async fn reused(answer: &'static [u8], port: u16) -> (Client, Arc<Loopback>, Arc<Destination>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let dialer = Arc::new(Loopback::default());
        let client = Client::new(&quick(), &Given::default(), dialer.clone()).unwrap();
        let entry = Arc::new(entry(&format!("http://hooks.example:{port}/"), |_| {}));
        let destination =
            Destinations::new(1, http::HeaderValue::from_static("t")).get(&entry).unwrap();
        let (near, mut far) = tokio::io::duplex(1024);
        let mut idle = client.open(near, Watch::default()).await.unwrap();
        idle.sender.ready().await.unwrap();
        client.pool.put(destination.met(), idle, None);
        tokio::spawn(async move {
            assert_eq!(far.read_u8().await.unwrap(), b'P');
            far.write_all(answer).await.unwrap();
        });
        (client, dialer, destination)
    }

    #[tokio::test]
    async fn a_request_on_a_reused_connection_that_ends_without_a_byte_is_sent_once_more() {
        let receiver = Receiver::start(Reply::status("200 OK")).await;
        let (client, dialer, destination) = reused(b"", receiver.port).await;
        let signed = std::sync::atomic::AtomicUsize::new(0);
        let request = || {
            signed.fetch_add(1, Ordering::SeqCst);
            request()
        };
        let exchanged = client.exchange(&destination, Instant::now() + PATIENCE, request).await;
        assert_eq!((exchanged.result.unwrap().status, exchanged.resent), (200, true));
        assert_eq!(
            (receiver.count(), dialer.dials.load(Ordering::SeqCst), signed.load(Ordering::SeqCst)),
            (1, 1, 2)
        );
    }

    #[tokio::test]
    async fn it_is_not_sent_again_when_a_byte_has_come() {
        let receiver = Receiver::start(Reply::status("200 OK")).await;
        for (answer, outcome) in [
            ("H", AttemptOutcome::ConnectionFailed),
            ("HTTP/1.1 100 Continue\r\n\r\n", AttemptOutcome::ConnectionFailed),
            ("SSH", AttemptOutcome::BadResponse),
        ] {
            let (client, dialer, destination) = reused(answer.as_bytes(), receiver.port).await;
            let exchanged = client.exchange(&destination, Instant::now() + PATIENCE, request).await;
            assert!(
                matches!(&exchanged.result, Err(Failure::Attempt(known, _)) if *known == outcome),
                "{exchanged:?}"
            );
            assert_eq!(
                (exchanged.resent, dialer.dials.load(Ordering::SeqCst)),
                (false, 0),
                "{answer}"
            );
        }
        let (client, ..) = reused(b"HTTP/1.1 201 A\r\n", receiver.port).await;
        let destination = Destinations::new(1, http::HeaderValue::from_static("t"));
        let entry = Arc::new(entry(&format!("http://hooks.example:{}/", receiver.port), |_| {}));
        let exchanged = client
            .exchange(&destination.get(&entry).unwrap(), Instant::now() + PATIENCE, request)
            .await;
        assert_eq!((exchanged.result.unwrap().status, exchanged.resent), (201, false));
        assert_eq!(receiver.count(), 0);
    }

    #[tokio::test]
    async fn the_second_sending_decides_and_is_the_last() {
        let receiver = Receiver::start(Reply::Close(String::new())).await;
        let (client, dialer, destination) = reused(b"", receiver.port).await;
        let exchanged = client.exchange(&destination, Instant::now() + PATIENCE, request).await;
        assert!(
            matches!(exchanged.result, Err(Failure::Attempt(AttemptOutcome::ConnectionFailed, _)))
                && exchanged.resent
        );
        assert_eq!((receiver.count(), dialer.dials.load(Ordering::SeqCst)), (1, 1));

        let receiver = Receiver::start(Reply::Hang).await;
        let (client, _, destination) = reused(b"", receiver.port).await;
        let exchanged = client
            .exchange(&destination, Instant::now() + Duration::from_millis(300), request)
            .await;
        assert!(matches!(exchanged.result, Err(Failure::TimedOut(_))) && exchanged.resent);
    }

    #[tokio::test]
    async fn without_an_egress_for_the_second_sending_the_first_was_the_attempt() {
        let (client, dialer, destination) = reused(b"", 1).await;
        *dialer.error.lock().unwrap() = Some(DialError::EgressUnavailable);
        let exchanged = client.exchange(&destination, Instant::now() + PATIENCE, request).await;
        assert!(
            matches!(exchanged.result, Err(Failure::Attempt(AttemptOutcome::ConnectionFailed, _))),
            "{exchanged:?}"
        );
        assert!(!exchanged.resent, "it went out once");
    }
}
