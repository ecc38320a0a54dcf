//! Makes an exchange over HTTP/1.1: a connection from the pool or the dialer, the request, the head
//! of the response, its body.

use std::{sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1::Builder},
};
use hyper_util::rt::TokioIo;
use outrider_model::AttemptOutcome;
use outrider_model::Result;
use outrider_rpc::Dialer;
use outrider_telemetry::catalog::worker::{CONNECT_SECONDS, RESPONSE_SECONDS};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;

use super::{
    answer::{self, Answer, End},
    answer_bounds::{AnswerBounds, HeadBounds},
    connections::{Body, Connection, Met, Pool, Reused, Shown, Timeouts},
    destination::Destination,
    failure::{Failure, broken, undialed},
    head::Heads,
    phase::Phase,
    stream::{Metered, Secure, Watch},
    tls,
};
use crate::{
    bounds::WireBounds,
    measure::{self, Used},
    options::{Given, Options},
};

/// How long a connection may take to be ready again after its response was read.
const READY_WITHIN: Duration = Duration::from_secs(1);

/// The part of a response that arrived before its body.
enum Head {
    Whole(Response<Incoming>),
    /// The status line alone.
    Status(u16, End),
}

/// The result of a request on a connection.
enum Asked {
    Answered(Head),
    /// No part of the request was sent.
    Unsent(Failure),
    /// The connection ended before the first byte of a response.
    Ended(Failure),
    Failed(Failure),
}

/// The result of an exchange.
#[derive(Debug)]
pub(crate) struct Exchanged {
    pub(crate) result: Result<Answer, Failure>,
    /// Whether the request was sent twice. The endpoint may have received it twice.
    pub(crate) resent: bool,
}

/// Makes exchanges.
pub(crate) struct Client {
    dialer: Arc<dyn Dialer>,
    tls: TlsConnector,
    http: Builder,
    pool: Arc<Pool>,
    bounds: AnswerBounds,
    wire: WireBounds,
    heads: HeadBounds,
}

impl Client {
    pub(crate) fn new(options: &Options, given: &Given, dialer: Arc<dyn Dialer>) -> Result<Self> {
        let mut http = Builder::new();
        // The buffer alone bounds heads only roughly, because the last read may exceed it.
        http.max_buf_size(options.response_head_bytes).max_header_size(options.response_head_bytes);
        let bounds = AnswerBounds::new(options);
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

    /// Returns the number of idle connections.
    pub(crate) fn idle(&self) -> usize {
        self.pool.idle()
    }

    /// Closes connections that were idle for too long.
    pub(crate) fn sweep(&self) {
        self.pool.sweep();
    }

    /// Makes an exchange within one deadline, from the dial to the end of the response. `request`
    /// builds the request. It is called when there is a connection, so that the request is signed
    /// at that moment.
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
            // The request may have arrived the first time. That was an attempt, and nothing was
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

    /// Sends on a connection from the pool, and waits for the head of the response. Returns `None`
    /// if the request must be sent on a new connection.
    ///
    /// The endpoint may have closed the connection while it was idle. If that is noticed before any
    /// part of the request was written, hyper returns the request. If the connection ends before
    /// the first byte of a response, the endpoint has most likely not seen the request. It is then
    /// sent once more, and `first` contains the result of the first time.
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

    /// Sends on a new connection, and waits for the head of the response.
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

    /// Sends a request on a connection. Once the status line of a response has arrived, it decides,
    /// whatever happens to the rest.
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

    /// Reads the rest of a response.
    async fn read(&self, connection: &Connection, head: Head, deadline: Instant) -> Answer {
        match head {
            Head::Whole(response) => {
                answer::read(response, connection.watch.take_fields(), self.bounds, deadline).await
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
        let dialed =
            timeout_at(deadline, self.dialer.dial(&destination.host, destination.port)).await;
        let stream = dialed.map_err(late(Phase::Connecting))?.map_err(undialed)?;
        // Small requests must not wait for acknowledgments. If this cannot be set, they do.
        let _ = stream.tcp().set_nodelay(true);
        let stream = Shown::new(stream);
        let look = stream.look();
        let (stream, watch) = self.metered(stream);
        let connection = match &destination.server_name {
            None => self.open(stream, watch).await,
            Some(name) => {
                let failed = |error| {
                    Failure::attempt(AttemptOutcome::TlsFailed, tls::handshake(&error, &self.wire))
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

    /// Makes an exchange over a plain stream, which is dropped after it.
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
            // The exchange in flight sees the error. Between exchanges, it is not needed.
            let _ = connection.await;
            ending.end();
        });
        Ok(Connection::new(sender, watch, task.abort_handle()))
    }

    /// Converts an error of an open connection. A fault found on the wire takes precedence over the
    /// error of the HTTP library.
    fn broken(&self, error: &hyper::Error, connection: &Connection) -> Failure {
        match connection.watch.fault() {
            Some(fault) => Failure::attempt(AttemptOutcome::BadResponse, fault.explain(&self.wire)),
            None => broken(error),
        }
    }

    /// Returns the connection to the pool, once its task has noticed the end of the exchange too.
    /// An endpoint may answer before it has read the whole request, and never read the rest. Such a
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

/// Sends a request, and waits for the head of the response.
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

#[cfg(test)]
mod tests;
