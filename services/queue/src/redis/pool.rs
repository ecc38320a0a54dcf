//! Connections for commands: one pool, to one server or to a cluster, and a bound on the time of
//! each command.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ::redis::{
    Cmd, ConnectionInfo, FromRedisValue, Pipeline, RedisError, RedisFuture, RedisResult, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    io::tcp::TcpSettings,
};
use bb8::ManageConnection;
use bb8_redis::RedisConnectionManager;
use outrider_telemetry::catalog::queue::{COMMAND_ERRORS, COMMAND_SECONDS};
use tokio::time::{Instant, timeout_at};

use super::{
    error::{Failure, leaves_usable, name_of, says},
    rights::Rights,
    script::Script,
    words::{halfway, line_of},
};
use crate::{Options, RedisTls, servers::is_secure};

/// How long the cluster client waits before it follows another redirection, in milliseconds. The
/// bound of the command also ends this wait.
const CLUSTER_RETRY_MILLIS: (u64, u64) = (10, 200);

/// Runs commands, each within the same time.
pub(super) struct Commands {
    pool: bb8::Pool<Manager>,
    timeout: Duration,
    /// Why the last connection could not be made. The pool itself only says that there is none.
    unconnected: Arc<Mutex<Option<RedisError>>>,
    rights: Arc<Rights>,
}

impl Commands {
    /// Creates a pool that connects at its first use.
    pub(super) fn new(
        servers: &[ConnectionInfo],
        options: &Options,
        tls: &RedisTls,
        rights: Arc<Rights>,
    ) -> RedisResult<Self> {
        let timeout = options.command_timeout;
        let servers_of = if options.cluster {
            let mut builder = ClusterClient::builder(servers.to_vec())
                .connection_timeout(timeout)
                .response_timeout(timeout)
                .min_retry_wait(CLUSTER_RETRY_MILLIS.0)
                .max_retry_wait(CLUSTER_RETRY_MILLIS.1)
                .tcp_settings(TcpSettings::default().set_nodelay(true));
            if servers.iter().any(is_secure) {
                // The client also connects in this way to nodes that other nodes name.
                builder = builder.certs(tls.certificates());
            }
            Servers::Cluster(builder.build()?)
        } else {
            let server =
                servers.first().ok_or((::redis::ErrorKind::InvalidClientConfig, "no server"))?;
            Servers::Single(RedisConnectionManager::new(server.clone())?)
        };
        // A check at each check-out would cost one more round trip per batch. The command that
        // fails on a broken connection finds it.
        let unconnected = Arc::default();
        let manager =
            Manager { servers: servers_of, timeout, unconnected: Arc::clone(&unconnected) };
        let pool = bb8::Pool::builder()
            .max_size(options.pool_size)
            .test_on_check_out(false)
            .connection_timeout(timeout)
            .build_unchecked(manager);
        Ok(Self { pool, timeout, unconnected, rights })
    }

    /// Runs one command in one round trip. Errors name the `step`.
    pub(super) async fn query<T: FromRedisValue>(
        &self,
        step: &'static str,
        command: &Cmd,
    ) -> Result<T, Failure> {
        self.bounded(step, async |connection| {
            connection
                .guarded(command)
                .await
                .map_err(|error| Failure::said(step, name_of(command), error))
        })
        .await
    }

    /// Calls a script, and loads it first if the server does not know it.
    pub(super) async fn call<T: FromRedisValue>(
        &self,
        script: &Script,
        command: &Cmd,
    ) -> Result<T, Failure> {
        let step = script.name;
        self.bounded(step, async |connection| {
            let answer = match connection.guarded(command).await {
                Err(error) if says(&error, "NOSCRIPT") => {
                    let load = script.load();
                    let loaded = connection.guarded::<Value>(&load).await;
                    loaded.map_err(|error| Failure::said(step, name_of(&load), error))?;
                    connection.guarded(command).await
                }
                other => other,
            };
            answer.map_err(|error| {
                let line = || line_of(&error).map(|line| script.command_in(line));
                let called =
                    halfway(&error).map(Some).or_else(line).unwrap_or_else(|| name_of(command));
                Failure::said(step, called, error)
            })
        })
        .await
    }

    async fn bounded<T>(
        &self,
        step: &'static str,
        work: impl AsyncFnOnce(&mut Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        // A command that never failed then shows 0 failures.
        COMMAND_ERRORS.with_label_values(&[step]);
        let _timed = COMMAND_SECONDS.with_label_values(&[step]).start_timer();
        let answer = self.connected(step, work).await;
        if let Err(failure) = &answer {
            self.rights.suspect(failure.right());
        }
        answer
    }

    async fn connected<T>(
        &self,
        step: &'static str,
        work: impl AsyncFnOnce(&mut Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let until = Instant::now() + self.timeout;
        let Ok(Ok(mut connection)) = timeout_at(until, self.pool.get()).await else {
            let last = self.unconnected.lock().unwrap_or_else(PoisonError::into_inner).clone();
            return Err(Failure::unconnected(step, last));
        };
        timeout_at(until, work(&mut connection))
            .await
            .unwrap_or_else(|_| Err(Failure::timed_out(step)))
    }
}

/// A connection of the pool.
pub(super) struct Connection {
    link: Link,
    /// True while a command runs and after one that broke off. It stays true if the command's
    /// future is dropped, so nobody gets a connection on which a reply is still to come.
    spoilt: bool,
}

impl Connection {
    async fn guarded<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        self.spoilt = true;
        let answer = command.query_async(&mut self.link).await;
        self.spoilt = answer.as_ref().err().is_some_and(|error| !leaves_usable(error));
        answer
    }
}

enum Link {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl ConnectionLike for Link {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(link) => link.req_packed_command(command),
            Self::Cluster(link) => link.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(link) => link.req_packed_commands(commands, offset, count),
            Self::Cluster(link) => link.req_packed_commands(commands, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(link) => link.get_db(),
            Self::Cluster(link) => link.get_db(),
        }
    }
}

/// Makes connections. bb8-redis makes those to one server. It knows no clusters, does not notice
/// broken connections, and has a fixed bound of half a second for a reply.
struct Manager {
    servers: Servers,
    timeout: Duration,
    /// Why the last connection could not be made, or `None` if it could.
    unconnected: Arc<Mutex<Option<RedisError>>>,
}

impl Manager {
    async fn link(&self) -> RedisResult<Link> {
        match &self.servers {
            Servers::Single(manager) => {
                let mut link = manager.connect().await?;
                link.set_response_timeout(self.timeout);
                Ok(Link::Single(link))
            }
            Servers::Cluster(client) => Ok(Link::Cluster(client.get_async_connection().await?)),
        }
    }
}

enum Servers {
    Single(RedisConnectionManager),
    Cluster(ClusterClient),
}

impl ManageConnection for Manager {
    type Connection = Connection;
    type Error = RedisError;

    async fn connect(&self) -> RedisResult<Connection> {
        let link = self.link().await;
        *self.unconnected.lock().unwrap_or_else(PoisonError::into_inner) =
            link.as_ref().err().cloned();
        link.map(|link| Connection { link, spoilt: false })
    }

    async fn is_valid(&self, connection: &mut Connection) -> RedisResult<()> {
        connection.guarded::<Value>(&::redis::cmd("PING")).await.map(drop)
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.spoilt
    }
}
