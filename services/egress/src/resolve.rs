//! From a name to its addresses.

use std::{
    fs,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use hickory_resolver::{
    Hosts, TokioResolver,
    config::{LookupIpStrategy, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{NetError, runtime::TokioRuntimeProvider},
    system_conf::parse_resolv_conf,
};
use tokio::{task::spawn_blocking, time::Instant};

use crate::options::{Options, StartError};

/// Between two looks at the files; nobody looks while no name is asked for.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long "there is no such name" is remembered at most: the DNS may say up to a day, and a name may be made after its URL.
const NEGATIVE_MAX_TTL: Duration = Duration::from_secs(30);

/// Looks names up. A trait so that tests can give any answer.
#[async_trait]
pub trait Resolve: Send + Sync + 'static {
    /// All addresses of an absolute name: no search list applies.
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, NoAddress>;
}

/// Why a name has no address. The texts are for logs only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAddress {
    /// There is none, or no server told.
    #[error("{0}")]
    Unknown(String),
    /// Nobody could be asked: no fault of the name's.
    #[error("no name server could be asked: {0}")]
    Unable(String),
}

impl From<NetError> for NoAddress {
    /// Servers that are late or answer with an error may be those of the name's owner, whom that must not excuse: `Unable` is
    /// tried again without being counted. So it is only what happens between us and our own name servers.
    fn from(error: NetError) -> Self {
        match error {
            // The resolver makes `NoConnections` of most errors of sockets, too many open files among them.
            NetError::Io(_) | NetError::NoConnections | NetError::Busy => Self::Unable(error.to_string()),
            _ => Self::Unknown(error.to_string()),
        }
    }
}

/// The resolver that the system's files describe, followed as they change; the hosts file comes first.
pub struct SystemResolver(Arc<Inner>);

struct Inner {
    cache_entries: u64,
    current: Mutex<Current>,
    /// Locked for as long as they are read.
    files: Mutex<Files>,
}

struct Current {
    resolver: Arc<TokioResolver>,
    look_at: Instant,
}

impl SystemResolver {
    /// Reads the system's configuration. Without name servers only the hosts file serves, until there are some.
    pub fn new(options: &Options) -> Result<Self, StartError> {
        Self::of("/etc/resolv.conf", "/etc/hosts", options.dns_cache_entries)
    }

    fn of(resolv_conf: impl Into<PathBuf>, hosts: impl Into<PathBuf>, cache_entries: u64) -> Result<Self, StartError> {
        let mut files = Files {
            servers: Followed::new(resolv_conf.into(), |bytes| parse_resolv_conf(bytes)),
            hosts: Followed::new(hosts.into(), parse_hosts),
        };
        files.refresh();
        let resolver = files.resolver(cache_entries).map_err(|error| StartError::Resolver(error.to_string()))?;
        let current = Current { resolver: Arc::new(resolver), look_at: Instant::now() + LOOK_EVERY };
        Ok(Self(Arc::new(Inner { cache_entries, current: Mutex::new(current), files: Mutex::new(files) })))
    }

    /// Who comes when it is time looks at the files first; the others ask as before meanwhile.
    async fn current(&self) -> Arc<TokioResolver> {
        if self.0.is_time() {
            let inner = Arc::clone(&self.0);
            // A look that fails changes nothing.
            drop(spawn_blocking(move || inner.look()).await);
        }
        Arc::clone(&self.0.current().resolver)
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

    /// Makes another resolver, with an empty cache, when the files have changed.
    fn look(&self) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if !files.refresh() {
            return;
        }
        match files.resolver(self.cache_entries) {
            Ok(resolver) => {
                self.current().resolver = Arc::new(resolver);
                tracing::info!(
                    name_servers = files.servers.value.0.name_servers().len(),
                    "the resolver follows the system's files"
                );
            }
            Err(error) => tracing::error!(%error, "the resolver cannot be set up anew; the old one stays in use"),
        }
    }
}

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, NoAddress> {
        let found = self.current().await.lookup_ip(format!("{name}.")).await?;
        Ok(found.iter().collect())
    }
}

/// What the resolver is made of.
struct Files {
    servers: Followed<(ResolverConfig, ResolverOpts)>,
    hosts: Followed<Arc<Hosts>>,
}

impl Files {
    /// Whether one of them holds something new.
    fn refresh(&mut self) -> bool {
        let servers = self.servers.refresh();
        self.hosts.refresh() || servers
    }

    fn resolver(&self, cache_entries: u64) -> Result<TokioResolver, NetError> {
        let (config, mut settings) = self.servers.value.clone();
        // Both families, so that an answer that is public in one and internal in the other is seen whole.
        settings.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        // It would read the system's; ours is given to it below.
        settings.use_hosts_file = ResolveHosts::Never;
        settings.cache_size = cache_entries;
        settings.negative_max_ttl = Some(NEGATIVE_MAX_TTL);
        settings.max_active_requests = 1_024;
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let mut resolver = builder.with_options(settings).build()?;
        resolver.set_hosts(Arc::clone(&self.hosts.value));
        Ok(resolver)
    }
}

fn parse_hosts(bytes: &[u8]) -> Result<Arc<Hosts>, NetError> {
    let mut hosts = Hosts::default();
    hosts.read_hosts_conf(bytes)?;
    Ok(Arc::new(hosts))
}

/// A file, and what was made of the last contents that were of use.
struct Followed<T> {
    path: PathBuf,
    make: fn(&[u8]) -> Result<T, NetError>,
    value: T,
    /// What it held when it was last read, of use or not: times of change are too coarse to tell.
    contents: Option<Vec<u8>>,
    is_readable: bool,
}

impl<T: Default> Followed<T> {
    fn new(path: PathBuf, make: fn(&[u8]) -> Result<T, NetError>) -> Self {
        Self { path, make, value: T::default(), contents: None, is_readable: true }
    }

    /// Whether there is a new value. What cannot be read or is of no use is said in the log, once, and the value stays.
    fn refresh(&mut self) -> bool {
        let read = fs::read(&self.path);
        let was_readable = std::mem::replace(&mut self.is_readable, read.is_ok());
        let made = match read {
            Ok(contents) if self.contents.as_ref() == Some(&contents) => return false,
            Ok(contents) => (self.make)(self.contents.insert(contents)),
            Err(_) if !was_readable => return false,
            Err(error) => Err(error.into()),
        };
        match made {
            Ok(value) => {
                self.value = value;
                true
            }
            Err(error) => {
                tracing::warn!(file = %self.path.display(), %error, "of no use for looking names up; what it said before holds");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use hickory_resolver::{
        net::{DnsError, NoRecords},
        proto::op::{Query, ResponseCode},
    };
    use tokio::time::advance;

    use super::*;

    /// A directory with the system's files, gone when dropped.
    struct Etc(PathBuf);

    impl Etc {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("outrider-egress-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, file: &str, contents: &str) {
            fs::write(self.0.join(file), contents).unwrap();
        }

        fn resolver(&self) -> SystemResolver {
            SystemResolver::of(self.0.join("resolv.conf"), self.0.join("hosts"), 16).unwrap()
        }
    }

    impl Drop for Etc {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    async fn addresses(resolver: &SystemResolver, name: &str) -> Vec<String> {
        resolver.resolve(name).await.unwrap().iter().map(ToString::to_string).collect()
    }

    async fn name_servers(resolver: &SystemResolver) -> Vec<String> {
        resolver.current().await;
        let files = resolver.0.files.lock().unwrap();
        files.servers.value.0.name_servers().iter().map(|server| server.ip.to_string()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_hosts_file_is_followed() {
        let etc = Etc::new("hosts");
        etc.write("hosts", "203.0.113.1 a.example.com\n2001:db8::1 a.example.com\n");
        let resolver = etc.resolver();
        assert_eq!(addresses(&resolver, "a.example.com").await, ["203.0.113.1", "2001:db8::1"]);
        etc.write("hosts", "203.0.113.2 a.example.com b.example.com\n");
        advance(LOOK_EVERY / 2).await;
        assert_eq!(addresses(&resolver, "a.example.com").await, ["203.0.113.1", "2001:db8::1"], "not looked at for every name");
        advance(LOOK_EVERY).await;
        for name in ["a.example.com", "b.example.com"] {
            assert_eq!(addresses(&resolver, name).await, ["203.0.113.2"], "{name}");
        }
        fs::remove_file(etc.0.join("hosts")).unwrap();
        advance(LOOK_EVERY).await;
        assert_eq!(addresses(&resolver, "b.example.com").await, ["203.0.113.2"], "what cannot be read changes nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn name_servers_are_followed_also_when_there_were_none_at_the_start() {
        let etc = Etc::new("servers");
        let resolver = etc.resolver();
        assert!(matches!(resolver.resolve("a.example.com").await, Err(NoAddress::Unable(_))), "there is nobody to ask");
        for (contents, expected) in [
            ("# the network is not up\n", &[][..]),
            ("nameserver 192.0.2.1\n", &["192.0.2.1"]),
            ("nameserver 192.0.2.2\nnameserver 2001:db8::2\n", &["192.0.2.2", "2001:db8::2"]),
            ("search example.com\n", &["192.0.2.2", "2001:db8::2"]),
            ("nameserver 192.0.2.3\n", &["192.0.2.3"]),
        ] {
            etc.write("resolv.conf", contents);
            advance(LOOK_EVERY).await;
            assert_eq!(name_servers(&resolver).await, expected, "{contents}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_resolver_is_made_anew_only_for_what_is_new() {
        let etc = Etc::new("same");
        etc.write("resolv.conf", "nameserver 192.0.2.1\noptions attempts:7\n");
        let resolver = etc.resolver();
        let first = resolver.current().await;
        assert_eq!(first.options().attempts, 7);
        assert_eq!(first.options().negative_max_ttl, Some(NEGATIVE_MAX_TTL));
        etc.write("resolv.conf", "nameserver 192.0.2.1\noptions attempts:7\n");
        advance(LOOK_EVERY).await;
        assert!(Arc::ptr_eq(&first, &resolver.current().await), "its cache is kept");
        etc.write("resolv.conf", "nameserver 192.0.2.1\noptions attempts:3\n");
        advance(LOOK_EVERY).await;
        let second = resolver.current().await;
        assert_eq!(second.options().attempts, 3);
        assert_eq!(second.options().negative_max_ttl, Some(NEGATIVE_MAX_TTL));
    }

    #[test]
    fn only_what_is_no_fault_of_the_names_is_excused() {
        let io = |kind| NetError::Io(Arc::new(io::Error::from(kind)));
        let dns = |code| NetError::Dns(DnsError::ResponseCode(code));
        let missing = NoRecords::new(Query::default(), ResponseCode::NXDomain);
        for (error, is_excused) in [
            (io(io::ErrorKind::NetworkUnreachable), true),
            (NetError::Io(Arc::new(io::Error::from_raw_os_error(24))), true),
            (NetError::NoConnections, true),
            (NetError::Busy, true),
            (NetError::Timeout, false),
            (NetError::Truncated, false),
            (dns(ResponseCode::ServFail), false),
            (dns(ResponseCode::Refused), false),
            (missing.into(), false),
        ] {
            let text = error.to_string();
            assert_eq!(matches!(NoAddress::from(error), NoAddress::Unable(_)), is_excused, "{text}");
        }
    }
}
