//! From a name to its addresses.

use std::net::IpAddr;

use async_trait::async_trait;
use hickory_resolver::{
    TokioResolver,
    config::{LookupIpStrategy, ResolveHosts, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
};

use crate::options::{Options, StartError};

/// Looks names up. A trait so that tests can give any answer.
#[async_trait]
pub trait Resolve: Send + Sync + 'static {
    /// All addresses of an absolute name: no search list applies.
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, NoAddress>;
}

/// A name has no address, or nobody could tell. The text is for logs only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoAddress(pub String);

/// The resolver that the system's configuration describes; the hosts file, read once, comes first.
pub struct SystemResolver(TokioResolver);

impl SystemResolver {
    /// Reads the system's configuration. Without name servers only the hosts file serves.
    pub fn new(options: &Options) -> Result<Self, StartError> {
        let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
            tracing::warn!(%error, "no name servers are configured: only names of the hosts file will resolve");
            let none = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
            TokioResolver::builder_with_config(none, TokioRuntimeProvider::default())
        });
        let settings = builder.options_mut();
        // Both families, so that an answer that is public in one and internal in the other is seen whole.
        settings.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        settings.use_hosts_file = ResolveHosts::Always;
        settings.cache_size = options.dns_cache_entries;
        settings.max_active_requests = 1_024;
        builder.build().map(Self).map_err(|error| StartError::Resolver(error.to_string()))
    }
}

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, NoAddress> {
        let found = self.0.lookup_ip(format!("{name}.")).await.map_err(|error| NoAddress(error.to_string()))?;
        Ok(found.iter().collect())
    }
}
