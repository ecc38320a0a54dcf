//! The listener and its connections.

use std::{convert::Infallible, future::Future, pin::pin, sync::Arc, time::Duration};

use hyper::{
    Request, Response,
    body::Incoming,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use outrider_rpc::{Acceptor, ConnectionSlot, ConnectionSlots, HoldingBody, listen};
use outrider_telemetry::{
    Seldom,
    catalog::gateway::{CONNECTIONS, CONNECTIONS_DISPLACED, CONNECTIONS_REFUSED},
    metrics::Ongoing,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::{ServiceBuilder, ServiceExt};

use crate::{
    Options,
    connection::{
        head::Limits,
        io::{AnswerGuard, Bounds, Progress, WatchedStream},
    },
    surface::{Surfaces, handler},
};

/// Bytes that a client may send on an HTTP/2 connection before they are read. h2 tolerates half of
/// this in small unread frames (256 bytes each, less their own length). That is enough for a stream
/// of events to wait with its whole window, 4,096 events by default, each in its own frame.
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;

/// Bytes of one answer that wait in an HTTP/2 connection for the client. The rest stays where it is
/// counted.
const SEND_BUFFER: usize = 64 * 1024;

/// How long a connection without a request stays open at shutdown. An HTTP/1.1 client may be
/// writing a request at that moment. If it is answered with `Connection: close`, it goes elsewhere;
/// if it were cut off, it would not know the outcome.
const LINGER: Duration = Duration::from_secs(1);

/// Limits the warnings about connections that are closed for lack of slots. Anybody can cause them.
static FULL: Seldom = Seldom::new();

/// Accepts connections until `shutdown` resolves, then drains.
pub(crate) async fn serve(
    surfaces: Arc<Surfaces>,
    acceptor: Acceptor,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) {
    let mut shutdown = pin!(shutdown);
    let mut server = Server::new(surfaces, acceptor);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            (stream, _) = listen::accept(&listener) => server.take(stream),
            Some(_) = server.connections.join_next(), if !server.connections.is_empty() => {}
        }
    }
    drop(listener);
    server.drain().await;
}

struct Server {
    serving: Arc<ConnectionServer>,
    connections: JoinSet<()>,
    slots: ConnectionSlots,
}

/// What all connections share.
pub(crate) struct ConnectionServer {
    surfaces: Arc<Surfaces>,
    acceptor: Acceptor,
    builder: auto::Builder<TokioExecutor>,
    closing: CancellationToken,
}

impl Server {
    fn new(surfaces: Arc<Surfaces>, acceptor: Acceptor) -> Self {
        let options = &surfaces.shared.options;
        let slots = ConnectionSlots::divided(options.max_connections, options.reserved_connections);
        let serving = Arc::new(ConnectionServer::new(surfaces, acceptor));
        Self { serving, connections: JoinSet::new(), slots }
    }

    fn take(&mut self, stream: TcpStream) {
        let slot = self.slots.take();
        if slot.as_ref().is_none_or(|slot| slot.displaced_another)
            && let Some(times) = FULL.happened()
        {
            let limit = self.serving.surfaces.shared.options.max_connections;
            tracing::warn!(
                limit,
                times,
                "the maximum number of connections is open: one is closed"
            );
        }
        match slot {
            Some(slot) => {
                if slot.displaced_another {
                    CONNECTIONS_DISPLACED.inc();
                }
                let serving = Arc::clone(&self.serving);
                self.connections
                    .spawn(async move { serving.connection(stream, Arc::new(slot)).await });
            }
            None => CONNECTIONS_REFUSED.inc(),
        }
    }

    async fn drain(mut self) {
        let shared = &self.serving.surfaces.shared;
        shared.serving.send_replace(false);
        self.serving.closing.cancel();
        let all = async { while self.connections.join_next().await.is_some() {} };
        if tokio::time::timeout(shared.options.drain, all).await.is_err() {
            tracing::warn!(
                connections = self.connections.len(),
                "connections did not end in time and are closed"
            );
        }
        self.connections.shutdown().await;
    }
}

impl ConnectionServer {
    pub(crate) fn new(surfaces: Arc<Surfaces>, acceptor: Acceptor) -> Self {
        let builder = builder(&surfaces.shared.options);
        Self { surfaces, acceptor, builder, closing: CancellationToken::new() }
    }

    /// Serves a connection from the TLS handshake to its end.
    async fn connection(&self, stream: TcpStream, slot: Arc<ConnectionSlot>) {
        let socket = tokio::select! {
            () = self.closing.cancelled() => return,
            () = slot.displaced() => return,
            socket = self.acceptor.accept(stream) => socket,
        };
        let socket = match socket {
            Ok(socket) => socket,
            Err(error) => {
                return tracing::debug!(
                    error = outrider_rpc::cause::of_client(&error),
                    "a handshake failed"
                );
            }
        };
        self.exchange(socket, slot).await;
    }

    /// Serves a connection after the handshake. Clients that break off, time out or do not speak
    /// HTTP are only logged at debug: they are no fault of the server, and each request has its own
    /// log line.
    pub(crate) async fn exchange<S>(&self, socket: S, slot: Arc<ConnectionSlot>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let _open = Ongoing::begin(&CONNECTIONS);
        let options = &self.surfaces.shared.options;
        let progress = Arc::new(Progress::new(slot.in_flight()));
        let bounds = Bounds {
            limits: Limits::of(options),
            head_timeout: options.header_read_timeout,
            idle_timeout: options.idle_timeout,
            max_abandoned: options.max_abandoned_requests as u64,
        };
        let io = TokioIo::new(WatchedStream::new(socket, Arc::clone(&progress), bounds));
        let mut connection = pin!(
            self.builder
                .serve_connection(io, self.service(Arc::clone(&progress), Arc::clone(&slot)))
        );
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = self.end_of(&progress, &slot) => {
                let displaced = slot.is_displaced();
                if displaced && !(slot.is_known() && progress.is_open()) {
                    return;
                }
                connection.as_mut().graceful_shutdown();
                // Does not wait for an HTTP/2 client that never confirms the shutdown.
                let unconfirmed = options.idle_timeout + options.keep_alive_timeout;
                tokio::select! {
                    ended = &mut connection => ended,
                    () = progress.rested(unconfirmed) => Ok(()),
                    () = slot.displaced(), if !displaced => Ok(()),
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended");
        }
    }

    /// Resolves when the connection must end: at shutdown, after the idle timeout, or when it has
    /// lost its slot.
    async fn end_of(&self, progress: &Progress, slot: &ConnectionSlot) {
        let options = &self.surfaces.shared.options;
        tokio::select! {
            () = async {
                self.closing.cancelled().await;
                progress.next_request(LINGER.min(options.drain / 2)).await;
            } => {}
            () = progress.rested(options.idle_timeout) => {}
            () = slot.displaced() => {}
        }
    }

    fn service(
        &self,
        progress: Arc<Progress>,
        slot: Arc<ConnectionSlot>,
    ) -> impl Service<
        Request<Incoming>,
        Response = Response<HoldingBody<Body, AnswerGuard>>,
        Error = Infallible,
        Future: Send + 'static,
    > + use<> {
        let surfaces = Arc::clone(&self.surfaces);
        let answering = ServiceBuilder::new().option_layer(surfaces.cors.clone()).service(
            tower::service_fn(move |request| {
                let (surfaces, slot) = (Arc::clone(&surfaces), Arc::clone(&slot));
                async move { handler::handle(&surfaces, &slot, request).await }
            }),
        );
        service_fn(move |mut request: Request<Incoming>| {
            let (ending, sending, fault) = progress.begin();
            if let Some(fault) = fault {
                request.extensions_mut().insert(fault);
            }
            let answer = answering.clone().oneshot(request);
            async move {
                let answer = answer.await;
                ending.answered();
                answer.map(|answer| answer.map(|body| HoldingBody::new(body, sending)))
            }
        })
    }
}

pub(crate) fn builder(options: &Options) -> auto::Builder<TokioExecutor> {
    let limits = Limits::of(options);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(limits.bytes)
        .max_headers(options.max_headers);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_concurrent_streams(options.max_concurrent_streams)
        .max_pending_accept_reset_streams(options.max_pending_resets)
        .max_local_error_reset_streams(options.max_error_resets)
        // Heads between the limit and this size are refused with a reason. The library's own
        // refusal has none.
        .max_header_list_size(u32::try_from(limits.bytes.saturating_mul(2)).unwrap_or(u32::MAX))
        .keep_alive_interval(options.keep_alive_interval)
        .keep_alive_timeout(options.keep_alive_timeout);
    builder
}
