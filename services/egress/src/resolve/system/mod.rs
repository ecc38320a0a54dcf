//! The resolver of the system, which follows its files.

#[cfg(test)]
mod server;
#[cfg(test)]
mod tests;

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{task::spawn_blocking, time::Instant};

use super::{
    asker::Asker,
    files::Files,
    lookup::{Bounds, NoAddress, Resolve, of_setup},
};
use crate::options::{Options, StartError};

/// Minimum time between two looks at the files. They are not read while no name is looked up.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The resolver that the system's files configure. It follows their changes. The hosts file comes
/// first.
pub struct SystemResolver(Arc<Inner>);

struct Inner {
    bounds: Bounds,
    current: Mutex<Current>,
    /// Locked while they are read.
    files: Mutex<Files>,
}

struct Current {
    asker: Arc<Asker>,
    look_at: Instant,
}

impl SystemResolver {
    /// Reads the system's configuration. Without name servers, only the hosts file is used until
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

    /// When it is time, one caller looks at the files first. The others use the current resolver
    /// meanwhile.
    async fn current(&self) -> Arc<Asker> {
        if self.0.is_time() {
            let inner = Arc::clone(&self.0);
            // A failed look changes nothing.
            drop(spawn_blocking(move || inner.look()).await);
        }
        Arc::clone(&self.0.current().asker)
    }
}

impl Inner {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether to look at the files. Returns true to one caller only.
    fn is_time(&self) -> bool {
        let now = Instant::now();
        let mut current = self.current();
        let is_time = current.look_at <= now;
        if is_time {
            current.look_at = now + LOOK_EVERY;
        }
        is_time
    }

    /// Creates another resolver with an empty cache if the files have changed.
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
