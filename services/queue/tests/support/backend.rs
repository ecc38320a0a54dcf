//! The backends that pass the suite.

use std::{sync::Arc, time::Duration};

use outrider_queue::{EmbeddedQueue, Options, Queue, RedisQueue, RedisTls};

use super::{
    server::{Cluster, Server},
    tls::Certificates,
};

/// A queue, and the server that must live as long.
pub struct Fixture {
    pub queue: Arc<dyn Queue>,
    pub epochs: Vec<i64>,
    pub server: Option<Server>,
}

impl Fixture {
    /// Returns the server behind the queue.
    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("a server")
    }
}

/// Makes empty queues.
pub trait Backend {
    /// Returns `None` if the test is skipped.
    async fn make(&self, window: u32, lease: Duration) -> Option<Fixture>;
}

/// The queue in memory, with this many shards.
pub struct Embedded(pub u32);

impl Backend for Embedded {
    async fn make(&self, window: u32, lease: Duration) -> Option<Fixture> {
        let queue = Arc::new(EmbeddedQueue::new(&Options {
            window,
            lease,
            shards: self.0,
            ..Options::default()
        }));
        let epochs = queue.epochs().await.expect("epochs");
        Some(Fixture { queue, epochs, server: None })
    }
}

/// One server, with this many shards.
pub struct Redis(pub u32);

impl Backend for Redis {
    async fn make(&self, window: u32, lease: Duration) -> Option<Fixture> {
        let server = Server::start()?;
        let options = Options { shards: self.0, window, lease, ..options(&server) };
        let queue = Arc::new(connect(options).await.expect("a queue"));
        let epochs = queue.epochs().await.expect("epochs");
        Some(Fixture { queue, epochs, server: Some(server) })
    }
}

/// One server over TLS with certificates on both sides.
pub struct RedisByTls;

impl Backend for RedisByTls {
    async fn make(&self, window: u32, lease: Duration) -> Option<Fixture> {
        let certificates = Certificates::new();
        let server = certificates.server()?;
        let queue = RedisQueue::connect(
            Options { window, lease, ..certificates.options(&server) },
            &certificates.tls(),
        )
        .await
        .expect("a queue");
        let queue = Arc::new(queue);
        let epochs = queue.epochs().await.expect("epochs");
        Some(Fixture { queue, epochs, server: Some(server) })
    }
}

/// A cluster, with this many shards. Each queue has its own keys.
pub struct InCluster<'a>(pub &'a Cluster, pub u32, pub &'static str);

impl Backend for InCluster<'_> {
    async fn make(&self, window: u32, lease: Duration) -> Option<Fixture> {
        let options = Options {
            url: self.0.urls().join(",").into(),
            cluster: true,
            prefix: self.2.to_owned(),
            shards: self.1,
            window,
            lease,
            // A busy machine must not fail the test; the bound itself is tested elsewhere.
            command_timeout: Duration::from_secs(10),
            ..Options::default()
        };
        let queue = Arc::new(connect(options).await.expect("a queue"));
        let epochs = queue.epochs().await.expect("epochs");
        Some(Fixture { queue, epochs, server: None })
    }
}

/// Connects a queue without TLS.
pub async fn connect(options: Options) -> outrider_model::Result<RedisQueue> {
    RedisQueue::connect(options, &RedisTls::default()).await
}

/// Returns options for one server, with a timeout of commands that a busy machine keeps.
pub fn options(server: &Server) -> Options {
    Options {
        url: server.url().into(),
        command_timeout: Duration::from_secs(10),
        ..Options::default()
    }
}
