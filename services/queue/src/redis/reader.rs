//! Connections that wait for jobs. Each blocks in one command, so it serves only one reader of one
//! shard at a time.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, RedisError, RedisResult,
    Value, aio::MultiplexedConnection,
};
use outrider_model::Result;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    entry::Batch,
    error::{Failure, leaves_usable, name_of, says, unexpected},
    keys::{GROUP, ShardKeys},
    rights::{Right, Rights},
    words::{is_refusal, words_of},
};
use crate::Options;

const STEP: &str = "read";
const CONNECT: &str = "connect to read";
/// How much longer than the requested wait the server may take before the connection counts as
/// broken.
const GRACE: Duration = Duration::from_secs(2);
/// How often a waiting command is told to return until it does, because the first call may overtake
/// the command itself.
const UNBLOCK_EVERY: Duration = Duration::from_millis(20);
/// How many redirections and connections that broke earlier one call survives.
const TRIES: usize = 4;

/// How one call to a shard ended.
pub(super) enum Taken {
    /// It returned these entries, or none.
    Batch(Batch),
    /// The group does not exist.
    NoGroup,
}

/// A request to read.
pub(super) struct Ask<'a> {
    pub(super) keys: &'a ShardKeys,
    pub(super) consumer: &'a str,
    pub(super) max: usize,
    /// When to stop waiting. `None` means not to wait.
    pub(super) until: Option<Instant>,
}

impl Ask<'_> {
    fn wait(&self) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    fn command(&self) -> Cmd {
        let mut command = ::redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(GROUP).arg(self.consumer).arg("COUNT").arg(self.max);
        // "BLOCK 0" would wait without a limit.
        let millis = u64::try_from(self.wait().as_millis()).unwrap_or(u64::MAX);
        if millis > 0 {
            command.arg("BLOCK").arg(millis);
        }
        command.arg("STREAMS").arg(self.keys.stream()).arg(">");
        command
    }
}

/// The connections of one shard.
pub(super) struct Readers {
    servers: Vec<ConnectionInfo>,
    connect_timeout: Duration,
    /// Whether waits may have to be ended early.
    unblocks: bool,
    rights: Arc<Rights>,
    /// The node that has the shard, if another node named it.
    home: Mutex<Option<ConnectionInfo>>,
    /// Connections that are not in use: as many as were ever in use at once, at most `max_idle`.
    idle: Mutex<Vec<Reader>>,
    max_idle: usize,
}

struct Reader {
    client: Client,
    link: MultiplexedConnection,
    /// The server's id of this connection, if it was read.
    id: Option<i64>,
}

impl Readers {
    pub(super) fn new(
        servers: Vec<ConnectionInfo>,
        options: &Options,
        rights: Arc<Rights>,
    ) -> Self {
        Self {
            servers,
            connect_timeout: options.command_timeout,
            unblocks: options.shards > 1,
            rights,
            home: Mutex::new(None),
            idle: Mutex::new(Vec::new()),
            max_idle: options.pool_size as usize,
        }
    }

    /// Takes up to `ask.max` jobs, and waits for the first. If `stop` turns true in the meantime,
    /// it makes the server end the wait, and returns jobs that the server may have given at that
    /// moment. No job is left on a connection that nobody reads.
    pub(super) async fn take(&self, ask: &Ask<'_>, stop: &watch::Sender<bool>) -> Result<Taken> {
        let mut last = None;
        for attempt in 0..TRIES {
            let (mut reader, used) = self.check_out(attempt).await?;
            let Ok(answer) = timeout(ask.wait() + GRACE, reader.ask(ask, stop, &self.rights)).await
            else {
                self.forget();
                return Err(Failure::timed_out(STEP).into());
            };
            match answer {
                Ok(answer) => {
                    self.check_in(reader);
                    return Batch::of_streams(answer)
                        .map(Taken::Batch)
                        .ok_or_else(|| unexpected(STEP));
                }
                // UNBLOCKED: the stream was deleted while the command waited.
                Err(error) if says(&error, "NOGROUP") || says(&error, "UNBLOCKED") => {
                    self.check_in(reader);
                    return Ok(Taken::NoGroup);
                }
                Err(error) => {
                    tracing::debug!(error = words_of(&error), "a read failed");
                    let broken = !leaves_usable(&error);
                    if broken {
                        self.forget();
                    }
                    let again = self.redirected(&error, &reader) || used && broken;
                    if !again {
                        let failure = Failure::said(STEP, name_of(&ask.command()), error);
                        self.rights.suspect(failure.right());
                        return Err(failure.into());
                    }
                    last = Some(error);
                }
            }
        }
        let told = |error| Failure::said(STEP, name_of(&ask.command()), error);
        Err(last.map_or_else(|| Failure::timed_out(STEP), told).into())
    }

    /// If one connection broke, the others have probably broken as well, and finding out with each
    /// takes time.
    fn forget(&self) {
        locked(&self.idle).clear();
    }

    /// Remembers the shard's node if a node of a cluster names it.
    fn redirected(&self, error: &RedisError, reader: &Reader) -> bool {
        let mut home = locked(&self.home);
        if !says(error, "MOVED") {
            *home = None;
            return false;
        }
        *home = error
            .redirect_node()
            .and_then(|(address, _)| moved_to(reader.client.get_connection_info(), address));
        home.is_some()
    }

    /// Returns a connection, and whether it was used before and so may have broken.
    async fn check_out(&self, attempt: usize) -> Result<(Reader, bool), Failure> {
        if let Some(reader) = locked(&self.idle).pop() {
            return Ok((reader, true));
        }
        let home = locked(&self.home).clone();
        let servers: Vec<_> = home.iter().chain(&self.servers).collect();
        let mut failure = None;
        for server in servers
            .iter()
            .cycle()
            .skip(if home.is_some() { 0 } else { attempt })
            .take(servers.len())
        {
            match timeout(self.connect_timeout, self.connect(server)).await {
                Ok(Ok(reader)) => return Ok((reader, false)),
                Ok(Err(broken)) => failure = Some(broken),
                Err(_) => failure = Some(Failure::timed_out(CONNECT)),
            }
        }
        let failure = failure.unwrap_or_else(|| Failure::timed_out(CONNECT));
        self.rights.suspect(failure.right());
        Err(failure)
    }

    async fn connect(&self, server: &ConnectionInfo) -> Result<Reader, Failure> {
        let (client, mut link) =
            self.link(server).await.map_err(|error| Failure::unconnected(CONNECT, Some(error)))?;
        let id = if self.unblocks { self.id(&mut link).await? } else { None };
        Ok(Reader { client, link, id })
    }

    /// Reads the server's id of a connection. `None` if the right to read it is missing.
    async fn id(&self, link: &mut MultiplexedConnection) -> Result<Option<i64>, Failure> {
        let mut ask = ::redis::cmd("CLIENT");
        let answer = ask.arg("ID").query_async(link).await;
        match answer.map_err(|error| Failure::said(CONNECT, name_of(&ask), error)) {
            Err(failure) if failure.right() != Right::of("client|id") => Err(failure),
            answer => {
                self.rights.note("client|id", answer.as_ref().err().map(Failure::words));
                Ok(answer.ok())
            }
        }
    }

    async fn link(&self, server: &ConnectionInfo) -> RedisResult<(Client, MultiplexedConnection)> {
        let client = Client::open(server.clone())?;
        // The library's default bound of half a second would end every wait.
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(Some(self.connect_timeout));
        let link = client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok((client, link))
    }

    fn check_in(&self, reader: Reader) {
        let mut idle = locked(&self.idle);
        if idle.len() < self.max_idle {
            idle.push(reader);
        }
    }
}

impl Reader {
    async fn ask(
        &mut self,
        ask: &Ask<'_>,
        stop: &watch::Sender<bool>,
        rights: &Rights,
    ) -> RedisResult<Value> {
        let command = ask.command();
        let mut stopped = stop.subscribe();
        let answer = command.query_async::<Value>(&mut self.link);
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => {
                if matches!(&answer, Ok(answer) if *answer != Value::Nil) {
                    stop.send_replace(true);
                }
                return answer;
            }
            _ = stopped.wait_for(|stop| *stop) => {}
        }
        let Some(id) = self.id else { return answer.await };
        let unblock = unblock(&self.client, id, rights);
        tokio::select! {
            answer = &mut answer => answer,
            never = unblock => match never {},
        }
    }
}

/// Tells the server to end the waiting command of a connection, repeatedly until this is dropped.
/// If it cannot, the command ends when its time is up.
async fn unblock(client: &Client, id: i64, rights: &Rights) -> Infallible {
    let mut control = None;
    loop {
        if control.is_none() {
            control = client.get_multiplexed_async_connection().await.ok();
        }
        if let Some(link) = &mut control {
            let told = ::redis::cmd("CLIENT").arg("UNBLOCK").arg(id).query_async::<i64>(link).await;
            let refusal = told.as_ref().err().filter(|error| is_refusal(error)).map(words_of);
            let refused = refusal.is_some();
            rights.note("client|unblock", refusal);
            if refused {
                return std::future::pending().await;
            }
            if told.is_err() {
                control = None;
            }
        }
        sleep(UNBLOCK_EVERY).await;
    }
}

/// Returns the server that a redirection names, with the settings of the server that named it.
/// Without a host, it is the same host.
fn moved_to(from: &ConnectionInfo, address: &str) -> Option<ConnectionInfo> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let addr = match from.addr().clone() {
        ConnectionAddr::Tcp(old, _) => {
            ConnectionAddr::Tcp(if host.is_empty() { old } else { host }, port)
        }
        ConnectionAddr::TcpTls { host: old, insecure, tls_params, .. } => ConnectionAddr::TcpTls {
            host: if host.is_empty() { old } else { host },
            port,
            insecure,
            tls_params,
        },
        _ => return None,
    };
    Some(from.clone().set_addr(addr))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use ::redis::IntoConnectionInfo as _;

    use super::*;

    #[test]
    fn a_redirection_keeps_credentials_and_may_leave_out_the_host() {
        let from = "redis://user:secret@10.0.0.1:7000".into_connection_info().expect("a URL");
        let moved = moved_to(&from, "10.0.0.2:7001").expect("an address");
        assert_eq!(moved.addr(), &ConnectionAddr::Tcp("10.0.0.2".to_owned(), 7001));
        assert_eq!(moved.redis_settings().password(), Some("secret"));
        let same = moved_to(&from, ":7002").expect("an address");
        assert_eq!(same.addr(), &ConnectionAddr::Tcp("10.0.0.1".to_owned(), 7002));
        let six = moved_to(&from, "::1:7003").expect("an address");
        assert_eq!(six.addr(), &ConnectionAddr::Tcp("::1".to_owned(), 7003));
        assert!(moved_to(&from, "nowhere").is_none());
    }

    #[test]
    fn no_wait_is_not_an_endless_wait() {
        let keys = ShardKeys::new("outrider", 1, 0);
        let ask = Ask { keys: &keys, consumer: "c", max: 5, until: Some(Instant::now()) };
        let command = String::from_utf8(ask.command().get_packed_command()).expect("text");
        assert!(!command.contains("BLOCK"), "{command}");
        assert!(command.contains(keys.stream()));
    }
}
