//! Looks up names, and caches the answers for as long as they are valid.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use hickory_resolver::{
    TokioResolver,
    net::{DnsError, NetError},
    proto::rr::Name,
};
use moka::future::Cache;
use outrider_rpc::NoName;

use super::lookup::{Bounds, NoAddress, absolute};

/// Maximum time that an answer is cached.
const MAX_TTL: Duration = Duration::from_secs(24 * 3600);
/// The same for "there is no such name". A name may be created after its URL.
const NEGATIVE_MAX_TTL: Duration = Duration::from_secs(30);

type Answer = Result<Vec<IpAddr>, NoAddress>;

#[derive(Clone)]
struct Remembered {
    answer: Answer,
    until: Instant,
}

/// A resolver and its cache of at most `names` answers of at most `addresses` addresses. Everything
/// else that a name server sends is dropped at once.
pub(super) struct Asker {
    pub(super) resolver: TokioResolver,
    remembered: Cache<String, Remembered>,
    addresses: usize,
    /// Search domains for a name of one label, after the name itself.
    search: Vec<String>,
}

/// Maximum number of search domains, as in resolvers before lists became unbounded.
const SEARCHED: usize = 6;

impl Asker {
    pub(super) fn new(resolver: TokioResolver, search: &[Name], bounds: Bounds) -> Self {
        let search = search.iter().take(SEARCHED).map(Name::to_ascii).collect();
        Self { resolver, remembered: Cache::new(bounds.names), addresses: bounds.addresses, search }
    }

    /// Returns all addresses of a name. A name of one label, which the hosts file or the local
    /// server may know, is also looked up in the search domains.
    pub(super) async fn look_up(&self, name: &str) -> Answer {
        let mut answer = self.ask(name).await;
        if name.contains('.') {
            return answer;
        }
        for domain in &self.search {
            if !matches!(answer, Err(NoAddress::Unknown(_))) {
                break;
            }
            answer = self.ask(&format!("{name}.{}", domain.trim_end_matches('.'))).await;
        }
        answer
    }

    /// Returns all addresses of a name.
    pub(super) async fn ask(&self, name: &str) -> Answer {
        if let Some(known) =
            self.remembered.get(name).await.filter(|known| known.until > Instant::now())
        {
            return known.answer;
        }
        let asked = absolute(name).map_err(|_| NoAddress::Unknown(NoName::Other))?;
        let (answer, ttl) = match self.resolver.lookup_ip(asked).await {
            Ok(found) => {
                let addresses: Vec<_> = found.iter().take(self.addresses + 1).collect();
                let ttl = found.valid_until().saturating_duration_since(Instant::now());
                (self.bounded(addresses), ttl.min(MAX_TTL))
            }
            Err(error) => {
                let ttl = negative_ttl(&error);
                (Err(error.into()), ttl)
            }
        };
        if !ttl.is_zero() {
            let remembered = Remembered { answer: answer.clone(), until: Instant::now() + ttl };
            self.remembered.insert(name.to_owned(), remembered).await;
        }
        answer
    }

    fn bounded(&self, addresses: Vec<IpAddr>) -> Answer {
        if addresses.len() <= self.addresses {
            return Ok(addresses);
        }
        Err(NoAddress::Unknown(NoName::TooMany))
    }
}

/// Returns how long "there is no such name" may be cached. No other error is cached.
fn negative_ttl(error: &NetError) -> Duration {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            Duration::from_secs(none.negative_ttl.unwrap_or(0).into()).min(NEGATIVE_MAX_TTL)
        }
        _ => Duration::ZERO,
    }
}
