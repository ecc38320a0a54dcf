//! The listener and its connections.

use std::{future::Future, io, pin::pin, sync::Arc, time::Duration};

use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use outrider_telemetry::{
    catalogue::gateway::{CONNECTIONS, CONNECTIONS_REFUSED},
    metrics::Ongoing,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tower::{ServiceBuilder, ServiceExt};

use crate::{
    Options, Shared, handler,
    io::{Progress, Watched},
};

/// How long accepting rests after an error that is not a single connection's, such as too many open files.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// Accepts until `shutdown`, then drains.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) {
    let mut shutdown = pin!(shutdown);
    let mut server = Server::new(shared);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => server.take(stream),
                Err(error) => rest_after(&error).await,
            },
            Some(_) = server.connections.join_next(), if !server.connections.is_empty() => {}
        }
    }
    drop(listener);
    server.drain().await;
}

async fn rest_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::warn!(%error, "accepting failed");
        tokio::time::sleep(ACCEPT_REST).await;
    }
}

struct Server {
    shared: Arc<Shared>,
    builder: auto::Builder<TokioExecutor>,
    graceful: GracefulShutdown,
    connections: JoinSet<()>,
    places: Arc<Semaphore>,
    /// Whether the last connection was turned away: said once, not for each.
    full: bool,
}

impl Server {
    fn new(shared: Arc<Shared>) -> Self {
        let places = Arc::new(Semaphore::new(shared.options.max_connections.min(Semaphore::MAX_PERMITS)));
        Self {
            builder: builder(&shared.options),
            graceful: GracefulShutdown::new(),
            connections: JoinSet::new(),
            places,
            full: false,
            shared,
        }
    }

    fn take(&mut self, stream: TcpStream) {
        let place = Arc::clone(&self.places).try_acquire_owned().ok();
        if place.is_none() != self.full {
            self.full = place.is_none();
            let limit = self.shared.options.max_connections;
            tracing::warn!(limit, full = self.full, "the number of connections crossed its limit");
        }
        match place {
            Some(place) => self.connect(stream, place),
            None => CONNECTIONS_REFUSED.inc(),
        }
    }

    fn connect(&mut self, stream: TcpStream, place: OwnedSemaphorePermit) {
        // Answers are small and waited for. A socket that refuses this is already gone.
        let _ = stream.set_nodelay(true);
        let options = &self.shared.options;
        let progress = Arc::new(Progress::new());
        let io = TokioIo::new(Watched::new(stream, Arc::clone(&progress), options.header_read_timeout, options.idle_timeout));
        let shared = Arc::clone(&self.shared);
        let answering = ServiceBuilder::new().option_layer(shared.cors.clone()).service(tower::service_fn(move |request| {
            let shared = Arc::clone(&shared);
            async move { handler::handle(&shared, request).await }
        }));
        let service = service_fn(move |request: Request<Incoming>| {
            let (answer, ending) = (answering.clone().oneshot(request), progress.begin());
            async move {
                let answer = answer.await;
                drop(ending);
                answer
            }
        });
        let connection = self.graceful.watch(self.builder.serve_connection(io, service).into_owned());
        let open = Ongoing::begin(&CONNECTIONS);
        self.connections.spawn(async move {
            // Clients break off, time out and speak no HTTP: that is their affair, and each request has its own line.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended");
            }
            drop((place, open));
        });
    }

    async fn drain(mut self) {
        self.shared.serving.send_replace(false);
        let drain = self.shared.options.drain;
        if tokio::time::timeout(drain, self.graceful.shutdown()).await.is_err() {
            tracing::warn!(connections = self.connections.len(), "connections did not end in time and are cut");
        }
        self.connections.shutdown().await;
    }
}

fn builder(options: &Options) -> auto::Builder<TokioExecutor> {
    // The least that hyper takes.
    const MIN_BUFFER: usize = 8 * 1024;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(options.max_header_bytes.max(MIN_BUFFER))
        .max_headers(options.max_headers);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.max_concurrent_streams)
        .max_header_list_size(u32::try_from(options.max_header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(options.keep_alive_interval)
        .keep_alive_timeout(options.keep_alive_timeout);
    builder
}
