//! The CONNECT proxy: reads one request per connection, and then opens a tunnel, or refuses and
//! closes the connection.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::{TokioIo, TokioTimer};
use outrider_rpc::{Acceptor, ConnectionSlot, Socket, cause, listen, tls::Protocol};
use outrider_telemetry::{Kind, Seldom, TraceContext, catalog::egress::TUNNELS, metrics::Ongoing};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Egress, Options, answer,
    answer::Refusal,
    cut,
    dial::{Dialed, Inner},
    head, tunnel,
};

/// Maximum number of headers of a request.
const HEADERS: usize = 100;

/// Bounds log lines that clients of the proxy can cause at will.
static FULL: Seldom = Seldom::new();
static NOT_MADE: Seldom = Seldom::new();

impl Egress {
    /// Serves CONNECT on a listener until `shutdown` resolves. Then accepts no more, gives tunnels
    /// the time of `drain` to end, and cuts the remaining ones. Dropping the future cuts all of
    /// them at once.
    ///
    /// Responses: 200 and the tunnel; 403 if the policy refuses, 502 if the name does not resolve
    /// or the connection fails, 503 if the maximum is open, each with the headers of
    /// `outrider_rpc::proxy`; 407 without the token of the options; 400, 405, 408 or 431 for a
    /// request that is not a proper CONNECT.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> io::Result<()> {
        self.protect(listener.local_addr()?);
        let tasks = TaskTracker::new();
        let (closing, cut) = (CancellationToken::new(), CancellationToken::new());
        let _cut_when_dropped = cut.clone().drop_guard();
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                (stream, peer) = listen::accept(&listener) => self.admit(stream, peer, &tasks,
                    &closing, &cut),
            }
        }
        drop(listener);
        closing.cancel();
        tasks.close();
        if timeout(self.inner.options.drain, tasks.wait()).await.is_err() {
            tracing::warn!(tunnels = tasks.len(), "tunnels are cut at shutdown");
            cut.cancel();
            tasks.wait().await;
        }
        Ok(())
    }

    fn admit(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        tasks: &TaskTracker,
        closing: &CancellationToken,
        cut: &CancellationToken,
    ) {
        let Some(waiting) = self.inner.waiting.take() else {
            tracing::debug!(%peer, "too many connections wait: one is closed");
            return;
        };
        if waiting.displaced_another {
            tracing::debug!(%peer, "too many connections wait: the oldest is closed");
        }
        let displaced = waiting.displaced();
        let connection = Connection {
            egress: self.clone(),
            peer,
            waiting: Mutex::new(Some(waiting)),
            opened: Mutex::new(None),
        };
        let (closing, cut) = (closing.clone(), cut.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = cut.cancelled() => {}
                () = displaced => {}
                () = connection.run(stream, closing) => {}
            }
        });
    }
}

/// Returns the HTTP library, configured for a connection.
pub(crate) fn builder(options: &Options) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(options.head_timeout)
        .max_headers(HEADERS)
        .max_buf_size(options.max_head_bytes.max(8 * 1024));
    builder
}

/// A tunnel whose 200 is being sent.
struct Opened {
    upgrade: OnUpgrade,
    outside: Dialed,
    _tunnel: OwnedSemaphorePermit,
}

/// A connection of a client: one request, and then possibly a tunnel.
struct Connection {
    egress: Egress,
    peer: SocketAddr,
    /// Held until a tunnel is granted. Until the token is presented, a newer connection may
    /// displace it.
    waiting: Mutex<Option<ConnectionSlot>>,
    opened: Mutex<Option<Opened>>,
}

impl Connection {
    async fn run(self, stream: TcpStream, closing: CancellationToken) {
        let Inner { options, given, .. } = self.egress.inner.as_ref();
        let begin = async {
            let mut socket =
                Acceptor::between_roles(given.tls.as_ref(), Protocol::Proxy).accept(stream).await?;
            let head = head::read(&mut socket, options.max_head_bytes, options.head_timeout).await;
            Ok::<_, io::Error>((socket, head))
        };
        let begun = tokio::select! {
            () = closing.cancelled() => return,
            begun = begin => begun,
        };
        let (socket, head) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                if let Some(times) = NOT_MADE.happened() {
                    let error = cause::of_client(&error);
                    tracing::warn!(peer = %self.peer, error, times,
                        "a connection to the egress was not made");
                }
                return;
            }
        };
        let head = match head {
            Ok(head) => head,
            Err(bad) => {
                tracing::debug!(peer = %self.peer, %bad, "a request to the egress is malformed");
                return head::refuse(socket, bad).await;
            }
        };
        let connection = Arc::new(self);
        connection.exchange(socket.with_ahead(head.into())).await;
        connection.carry(&closing).await;
    }

    /// Lets hyper read the checked head, which is prepended to the socket, and answer it.
    async fn exchange(self: &Arc<Self>, socket: Socket) {
        let options = &self.egress.inner.options;
        let io = TokioIo::new(socket);
        let service = service_fn(|request| {
            let connection = Arc::clone(self);
            async move { Ok::<_, Infallible>(connection.answer(request).await) }
        });
        let served = builder(options).serve_connection(io, service).with_upgrades().await;
        if let Err(error) = served {
            tracing::debug!(peer = %self.peer, %error, "a request to the egress failed");
            self.opened().take();
        }
    }

    async fn answer(&self, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
        match self.open(&mut request).await {
            Ok(opened) => {
                *self.opened() = Some(opened);
                answer::established()
            }
            Err(refusal) => refusal.into_response(),
        }
    }

    async fn open(&self, request: &mut Request<Incoming>) -> Result<Opened, Refusal> {
        answer::authorize(request, self.egress.inner.given.token.as_ref())?;
        if let Some(seat) = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            seat.keep();
        }
        let target = answer::target(request)?;
        let tunnel = Arc::clone(&self.egress.inner.tunnels).try_acquire_owned().map_err(|_| {
            if let Some(times) = FULL.happened() {
                tracing::warn!(peer = %self.peer, times, "the egress is full");
            }
            Refusal::full()
        })?;
        // From here on, the permit of the tunnel counts this connection.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let caller = TraceContext::of_headers(request.headers());
        let outside =
            self.egress.dial_within(caller.as_ref(), Kind::Server, &target.0, target.1).await?;
        Ok(Opened { upgrade: hyper::upgrade::on(request), outside, _tunnel: tunnel })
    }

    async fn carry(&self, closing: &CancellationToken) {
        let Some(opened) = self.opened().take() else { return };
        let client = match opened.upgrade.await {
            Ok(client) => TokioIo::new(client),
            Err(error) => {
                return tracing::debug!(peer = %self.peer, %error, "a tunnel did not begin");
            }
        };
        let started = Instant::now();
        let options = &self.egress.inner.options;
        let patience = tunnel::Patience { idle: options.idle_timeout, kept: options.drain_idle };
        let ongoing = Ongoing::begin(&TUNNELS);
        let Dialed { stream, host, target, policies } = opened.outside;
        let summary = tokio::select! {
            summary = tunnel::run(client, stream, patience, closing.cancelled()) => Some(summary),
            () = cut::refused(policies, host.clone(), target) => None,
        };
        drop(ongoing);
        let Some(summary) = summary else { return };
        tracing::debug!(
            peer = %self.peer,
            host,
            port = target.port(),
            end = summary.end.name(),
            bytes_out = summary.bytes_out,
            bytes_in = summary.bytes_in,
            milliseconds = started.elapsed().as_millis(),
            "a tunnel ended"
        );
    }

    fn opened(&self) -> std::sync::MutexGuard<'_, Option<Opened>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
