//! Follows the system's files that configure name resolution.

use std::{fs, net::IpAddr, path::PathBuf, sync::Arc};

use hickory_resolver::{
    Hosts, TokioResolver,
    config::{LookupIpStrategy, ResolveHosts, ResolverConfig, ResolverOpts},
    lookup::Lookup,
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::Query,
        rr::{Name, RData, Record},
    },
    system_conf::parse_resolv_conf,
};

use super::lookup::{absolute, of_setup};

/// A day, in seconds. Entries of the hosts file are forgotten when it changes.
const HOSTS_TTL: u32 = 24 * 3600;

/// The files that configure the resolver.
pub(super) struct Files {
    pub(super) servers: Followed<(ResolverConfig, ResolverOpts)>,
    hosts: Followed<Arc<Hosts>>,
}

impl Files {
    pub(super) fn new(resolv_conf: PathBuf, hosts: PathBuf) -> Self {
        Self {
            servers: Followed::new(resolv_conf, |bytes| parse_resolv_conf(bytes)),
            hosts: Followed::new(hosts, |bytes| Ok(parse_hosts(bytes))),
        }
    }

    /// Reads the files again. Returns whether one of them changed.
    pub(super) fn refresh(&mut self) -> bool {
        let servers = self.servers.refresh();
        self.hosts.refresh() || servers
    }

    /// Returns the search domains.
    pub(super) fn search(&self) -> &[Name] {
        self.servers.value.0.search()
    }

    pub(super) fn resolver(&self) -> Result<TokioResolver, NetError> {
        let (config, settings) = self.servers.value.clone();
        resolver(config, settings, &self.hosts.value)
    }
}

/// Returns a resolver that asks these servers, after these hosts.
pub(super) fn resolver(
    config: ResolverConfig,
    mut settings: ResolverOpts,
    hosts: &Arc<Hosts>,
) -> Result<TokioResolver, NetError> {
    // Both families, so that a name with a public address in one and an internal address in the
    // other is seen as a whole.
    settings.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // It would read the system's file. Ours is given to it below.
    settings.use_hosts_file = ResolveHosts::Never;
    // It counts messages, whatever their size. The cache is in `Asker`, and bounded in bytes too.
    settings.cache_size = 0;
    settings.max_active_requests = 1_024;
    let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let mut resolver = builder.with_options(settings).build()?;
    resolver.set_hosts(Arc::clone(hosts));
    Ok(resolver)
}

/// Reads lines with an address and names. Names are used as they are, like those that are looked
/// up. The library's own parser drops names with underscores.
fn parse_hosts(bytes: &[u8]) -> Arc<Hosts> {
    let mut hosts = Hosts::default();
    let text = String::from_utf8_lossy(bytes);
    for line in text.trim_start_matches('\u{feff}').lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else {
            continue;
        };
        for word in words {
            let Ok(name) = absolute(&word.to_ascii_lowercase()) else { continue };
            let data = RData::from(address);
            let kind = data.record_type();
            let record = Record::from_rdata(name.clone(), HOSTS_TTL, data);
            let found = Lookup::new_with_max_ttl(Query::query(name.clone(), kind), [record]);
            hosts.insert(name, kind, found);
        }
    }
    Arc::new(hosts)
}

/// A file, and the value of its last usable content.
pub(super) struct Followed<T> {
    path: PathBuf,
    make: fn(&[u8]) -> Result<T, NetError>,
    pub(super) value: T,
    /// The last content, usable or not. Modification times are too coarse to detect changes.
    contents: Option<Vec<u8>>,
    is_readable: bool,
}

impl<T: Default> Followed<T> {
    fn new(path: PathBuf, make: fn(&[u8]) -> Result<T, NetError>) -> Self {
        Self { path, make, value: T::default(), contents: None, is_readable: true }
    }

    /// Reads the file again. Returns whether there is a new value. If the file cannot be read or
    /// used, logs that once and keeps the value.
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
                let error = of_setup(&error);
                tracing::warn!(file = %self.path.display(), error,
                    "of no use for looking names up; what it said before holds");
                false
            }
        }
    }
}
