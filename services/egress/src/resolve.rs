//! From a name to its addresses.

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use hickory_resolver::{
    net::{DnsError, NetError},
    proto::{ProtoError, op::ResponseCode, rr::Name},
};
use outrider_rpc::{NoName, cause};
use tokio::{task::spawn_blocking, time::Instant};

use self::{asker::Asker, files::Files};
use crate::options::{Options, StartError};

mod asker;
mod files;
#[cfg(test)]
mod server;
#[cfg(test)]
mod tests;

/// Between two looks at the files; nobody looks while no name is asked for.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Looks names up. A trait so that tests can give any answer.
#[async_trait]
pub trait Resolve: Send + Sync + 'static {
    /// All addresses of an absolute name: no search list applies, but to a name of one label, which
    /// comes only where the installation allows it by name.
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, NoAddress>;
}

/// Why a name has no address. The texts are for logs only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAddress {
    /// There is none, or no server told.
    #[error("the host name does not resolve{0}")]
    Unknown(NoName),
    /// Nobody could be asked: no fault of the name's.
    #[error("no name server could be asked: {0}")]
    Unable(String),
}

impl From<NetError> for NoAddress {
    /// Servers that are late or answer with an error may be those of the name's owner, whom that
    /// must not excuse: `Unable` is tried again without being counted. So it is only what happens
    /// between us and our own name servers.
    fn from(error: NetError) -> Self {
        match error {
            // The resolver makes `NoConnections` of most errors of sockets, too many open files
            // among them.
            NetError::Io(error) => Self::Unable(cause::of_io(&error)),
            NetError::NoConnections => Self::Unable("no connection to one".to_owned()),
            NetError::Busy => Self::Unable("too many questions are under way".to_owned()),
            NetError::Timeout => Self::Unknown(NoName::Silent),
            NetError::Dns(error) => Self::Unknown(of_answer(&error)),
            _ => Self::Unknown(NoName::Other),
        }
    }
}

/// What the servers' answer means.
fn of_answer(error: &DnsError) -> NoName {
    let code = match error {
        DnsError::NoRecordsFound(none) => none.response_code,
        DnsError::ResponseCode(code) => *code,
        _ => return NoName::Other,
    };
    match code {
        ResponseCode::NXDomain => NoName::Missing,
        ResponseCode::NoError => NoName::NoAddress,
        ResponseCode::ServFail => NoName::ServerFails,
        ResponseCode::Refused => NoName::ServerRefuses,
        _ => NoName::Other,
    }
}

/// An error of the library about the system's files or the resolver itself. What it says of answers
/// is Debug output.
fn of_setup(error: &NetError) -> String {
    match error {
        NetError::Io(error) => cause::of_io(error),
        NetError::Dns(_) => "a name server answers with an error".to_owned(),
        other => other.to_string(),
    }
}

/// The resolver that the system's files describe, followed as they change; the hosts file comes
/// first.
pub struct SystemResolver(Arc<Inner>);

struct Inner {
    bounds: Bounds,
    current: Mutex<Current>,
    /// Locked for as long as they are read.
    files: Mutex<Files>,
}

/// What is kept of answers.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Names that are remembered.
    names: u64,
    /// Addresses of one name; a name with more is not resolved.
    addresses: usize,
}

struct Current {
    asker: Arc<Asker>,
    look_at: Instant,
}

impl SystemResolver {
    /// Reads the system's configuration. Without name servers only the hosts file serves, until
    /// there are some.
    pub fn new(options: &Options) -> Result<Self, StartError> {
        let bounds =
            Bounds { names: options.dns_cache_entries, addresses: options.max_name_addresses };
        Self::of("/etc/resolv.conf", "/etc/hosts", bounds)
    }

    fn of(
        resolv_conf: impl Into<PathBuf>,
        hosts: impl Into<PathBuf>,
        bounds: Bounds,
    ) -> Result<Self, StartError> {
        let mut files = Files::new(resolv_conf.into(), hosts.into());
        files.refresh();
        let resolver = files.resolver().map_err(|error| StartError::Resolver(of_setup(&error)))?;
        let asker = Arc::new(Asker::new(resolver, files.search(), bounds));
        let current = Current { asker, look_at: Instant::now() + LOOK_EVERY };
        Ok(Self(Arc::new(Inner { bounds, current: Mutex::new(current), files: Mutex::new(files) })))
    }

    /// Who comes when it is time looks at the files first; the others ask as before meanwhile.
    async fn current(&self) -> Arc<Asker> {
        if self.0.is_time() {
            let inner = Arc::clone(&self.0);
            // A look that fails changes nothing.
            drop(spawn_blocking(move || inner.look()).await);
        }
        Arc::clone(&self.0.current().asker)
    }
}

impl Inner {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether to look at the files, which only one is told.
    fn is_time(&self) -> bool {
        let now = Instant::now();
        let mut current = self.current();
        let is_time = current.look_at <= now;
        if is_time {
            current.look_at = now + LOOK_EVERY;
        }
        is_time
    }

    /// Makes another resolver, which remembers nothing, when the files have changed.
    fn look(&self) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if !files.refresh() {
            return;
        }
        match files.resolver() {
            Ok(resolver) => {
                self.current().asker = Arc::new(Asker::new(resolver, files.search(), self.bounds));
                tracing::info!(
                    name_servers = files.servers.value.0.name_servers().len(),
                    "the resolver follows the system's files"
                );
            }
            Err(error) => {
                tracing::error!(
                    error = of_setup(&error),
                    "the resolver cannot be set up anew; the old one stays in use"
                )
            }
        }
    }
}

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, NoAddress> {
        self.current().await.look_up(name).await
    }
}

/// Exactly this name, from the root: no search list, and no other reading of its characters. (Names
/// made from text the usual way refuse underscores, and none of them would be asked for.)
fn absolute(name: &str) -> Result<Name, ProtoError> {
    Name::from_ascii(format!("{}.", name.strip_suffix('.').unwrap_or(name)))
}
