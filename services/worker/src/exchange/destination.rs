//! The parts that all requests to an endpoint have in common, prepared once per version of its
//! configuration.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use outrider_model::{EndpointId, Target, header as rule};
use outrider_store::EndpointEntry;
use tokio_rustls::rustls::pki_types::ServerName;
use url::{Host, Url};

use super::connections::Met;

/// The destination of the requests to an endpoint.
pub(crate) struct Destination {
    /// The version of the configuration from which this was made.
    pub(crate) entry: Arc<EndpointEntry>,
    /// Scheme, host and port. Destinations with the same origin share connections.
    pub(crate) origin: Arc<str>,
    /// A name, or an address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The name that the certificate must have, with https.
    pub(crate) server_name: Option<ServerName<'static>>,
    /// Path and query.
    pub(crate) uri: Uri,
    /// Constant headers, and those of the endpoint.
    pub(crate) headers: HeaderMap,
    /// Used if neither the endpoint nor the event sets one.
    pub(crate) user_agent: HeaderValue,
}

/// Requests cannot be sent to the URL of the endpoint. Validation should have refused it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the endpoint's URL is not valid: {0}")]
pub(crate) struct UnusableUrl(&'static str);

impl Destination {
    pub(crate) fn prepare(
        entry: Arc<EndpointEntry>,
        user_agent: &HeaderValue,
    ) -> Result<Self, UnusableUrl> {
        let Target::Http { url } = &entry.endpoint.spec.target;
        let url = Url::parse(url).map_err(|_| UnusableUrl("it is no URL"))?;
        let (host, name) = match url.host().ok_or(UnusableUrl("it has no host"))? {
            Host::Domain(name) => (name.to_owned(), ServerName::try_from(name.to_owned()).ok()),
            Host::Ipv4(address) => {
                (address.to_string(), Some(ServerName::from(std::net::IpAddr::from(address))))
            }
            Host::Ipv6(address) => {
                (address.to_string(), Some(ServerName::from(std::net::IpAddr::from(address))))
            }
        };
        let server_name = match url.scheme() {
            "https" => {
                Some(name.ok_or(UnusableUrl("its host is no name that a certificate can have"))?)
            }
            "http" => None,
            _ => return Err(UnusableUrl("it begins with neither https:// nor http://")),
        };
        let port = url.port_or_known_default().ok_or(UnusableUrl("it has no port"))?;
        let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
        // With the port if it is not the default of the scheme, and with brackets around an IPv6
        // address.
        let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let mut headers = endpoint_headers(&entry);
        headers.insert(
            header::HOST,
            HeaderValue::from_str(authority)
                .map_err(|_| UnusableUrl("its host is no header value"))?,
        );
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Ok(Self {
            origin: format!("{}://{host}:{port}", url.scheme()).into(),
            host,
            port,
            server_name,
            uri: path.parse().map_err(|_| UnusableUrl("its path is none of HTTP"))?,
            headers,
            user_agent: user_agent.clone(),
            entry,
        })
    }

    /// Returns the origin, with the organization that uses it.
    pub(crate) fn met(&self) -> Met<'_> {
        Met { origin: &self.origin, by: self.entry.organization }
    }
}

fn endpoint_headers(entry: &EndpointEntry) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(entry.endpoint.spec.headers.len() + 12);
    for (name, value) in entry.endpoint.spec.headers.iter() {
        match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes())) {
            (Ok(name), Ok(value)) if rule::reserved(name.as_str()).is_none() => {
                headers.insert(name, value);
            }
            // Validation should have refused it.
            _ => {
                tracing::warn!(endpoint = %entry.endpoint.id, header = name,
                    "a header of the endpoint is not sent")
            }
        }
    }
    headers
}

/// A cache of recently used destinations.
pub(crate) struct Destinations {
    prepared: Mutex<HashMap<EndpointId, Arc<Destination>>>,
    capacity: usize,
    user_agent: HeaderValue,
}

impl Destinations {
    /// Keeps up to `capacity`.
    pub(crate) fn new(capacity: usize, user_agent: HeaderValue) -> Self {
        Self { prepared: Mutex::default(), capacity, user_agent }
    }

    /// Returns the destination of exactly this version of an endpoint.
    pub(crate) fn get(&self, entry: &Arc<EndpointEntry>) -> Result<Arc<Destination>, UnusableUrl> {
        let id = entry.endpoint.id;
        if let Some(known) = self.locked().get(&id).filter(|known| Arc::ptr_eq(&known.entry, entry))
        {
            return Ok(Arc::clone(known));
        }
        let made = Arc::new(Destination::prepare(Arc::clone(entry), &self.user_agent)?);
        let mut prepared = self.locked();
        if prepared.len() >= self.capacity && !prepared.contains_key(&id) {
            // Any entry will do: it costs its endpoint a few microseconds at its next request.
            let victim = prepared.keys().next().copied();
            victim.and_then(|victim| prepared.remove(&victim));
        }
        if self.capacity > 0 {
            prepared.insert(id, Arc::clone(&made));
        }
        Ok(made)
    }

    /// Forgets destinations of which the directory has another version or none, because they
    /// contain secrets.
    pub(crate) fn sweep(&self) {
        let mut prepared = self.locked();
        prepared.retain(|_, known| Arc::strong_count(&known.entry) > 1);
        let used = prepared.len();
        prepared.shrink_to(2 * used);
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<EndpointId, Arc<Destination>>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use outrider_model::{address::Policy, url::WebhookUrl};
    use proptest::prelude::*;

    use super::*;
    use crate::tests::bench::entry;

    /// Mostly valid URLs of endpoints.
    const URLS: &str = "https?://([a-zA-Z0-9_-]{1,63}|_[a-z]{0,3}|xn--[a-z0-9-]{1,6}|\
    [a-z\u{e0}-\u{f6}\u{3b1}-\u{3c9}]{1,9})\
        ([.][a-z0-9_-]{1,5}){0,2}[.](com|example|xn--p1ai|a_b|[0-9]{1,2})[.]?(:[0-9]{2,5})?(/[a-zA-Z0-9.%~;=_-]{0,9})?(\\?[a-z&=]{0,5})?";

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn every_url_that_is_accepted_can_be_sent_to_as_it_was_judged(text in URLS) {
            if let Ok(url) = WebhookUrl::parse(&text, &Policy::default()) {
                let entry = Arc::new(entry(url.as_str(), |_| {}));
                let made = Destination::prepare(entry, &HeaderValue::from_static("t"));
                let made = made.map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
                prop_assert_eq!((made.host.as_str(), made.port), (url.host(), url.port()));
                prop_assert_eq!(made.headers[header::HOST].to_str().unwrap(), url.authority());
                prop_assert_eq!(made.uri.to_string(), url.path_and_query());
                prop_assert_eq!(made.server_name.is_some(), url.is_https());
            }
        }
    }

    #[test]
    fn an_endpoint_that_is_gone_is_forgotten() {
        let destinations = Destinations::new(10, HeaderValue::from_static("t"));
        let [kept, gone] = [1, 2].map(|_| Arc::new(entry("https://hooks.example/", |_| {})));
        assert!(destinations.get(&kept).is_ok() && destinations.get(&gone).is_ok());
        let left = Arc::downgrade(&gone);
        drop(gone);
        destinations.sweep();
        assert!(left.upgrade().is_none());
        assert_eq!(destinations.locked().len(), 1);
    }

    #[test]
    fn names_with_underscores_and_addresses_have_a_name_for_tls() {
        for text in [
            "https://a_b.example.com/",
            "https://_a.b_.example.com/",
            "https://8.8.8.8/",
            "https://[2a00:1450::1]:8443/",
        ] {
            let url = WebhookUrl::parse(text, &Policy::default()).unwrap();
            let made = Destination::prepare(
                Arc::new(entry(url.as_str(), |_| {})),
                &HeaderValue::from_static("t"),
            )
            .unwrap();
            assert!(made.server_name.is_some(), "{text}");
        }
    }
}
