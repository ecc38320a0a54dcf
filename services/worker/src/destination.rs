//! What is the same in every request to an endpoint, prepared once per version of its configuration.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use outrider_model::{EndpointId, Target};
use outrider_store::EndpointEntry;
use tokio_rustls::rustls::pki_types::ServerName;
use url::{Host, Url};

use crate::request::is_ours;

/// Where the requests to an endpoint go.
pub(crate) struct Destination {
    /// The version of the configuration that this was made from.
    pub(crate) entry: Arc<EndpointEntry>,
    /// Scheme, host and port: connections are shared by those who have the same.
    pub(crate) origin: Arc<str>,
    /// A name, or an address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// With https: whom the certificate must name.
    pub(crate) server_name: Option<ServerName<'static>>,
    /// Path and query.
    pub(crate) uri: Uri,
    /// Ours that never change, and the endpoint's.
    pub(crate) headers: HeaderMap,
}

/// An endpoint's URL is not one that requests can go to. Validation should have refused it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the endpoint's URL is not valid")]
pub(crate) struct UnusableUrl;

impl Destination {
    fn prepare(entry: Arc<EndpointEntry>, user_agent: &HeaderValue) -> Result<Self, UnusableUrl> {
        let Target::Http { url } = &entry.endpoint.target;
        let url = Url::parse(url).map_err(|_| UnusableUrl)?;
        let (host, name) = match url.host().ok_or(UnusableUrl)? {
            Host::Domain(name) => (name.to_owned(), ServerName::try_from(name.to_owned()).ok()),
            Host::Ipv4(address) => (address.to_string(), Some(ServerName::from(std::net::IpAddr::from(address)))),
            Host::Ipv6(address) => (address.to_string(), Some(ServerName::from(std::net::IpAddr::from(address)))),
        };
        let server_name = match url.scheme() {
            "https" => Some(name.ok_or(UnusableUrl)?),
            "http" => None,
            _ => return Err(UnusableUrl),
        };
        let port = url.port_or_known_default().ok_or(UnusableUrl)?;
        let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
        // With the port when it is not the scheme's own, and with brackets around an IPv6 address.
        let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let mut headers = endpoint_headers(&entry);
        headers.insert(header::HOST, HeaderValue::from_str(authority).map_err(|_| UnusableUrl)?);
        headers.insert(header::USER_AGENT, user_agent.clone());
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Ok(Self {
            origin: format!("{}://{host}:{port}", url.scheme()).into(),
            host,
            port,
            server_name,
            uri: path.parse().map_err(|_| UnusableUrl)?,
            headers,
            entry,
        })
    }
}

fn endpoint_headers(entry: &EndpointEntry) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(entry.endpoint.headers.len() + 12);
    for (name, value) in &entry.endpoint.headers {
        match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes())) {
            (Ok(name), Ok(value)) if !is_ours(&name) => {
                headers.insert(name, value);
            }
            // Validation should have refused it.
            _ => tracing::warn!(endpoint = %entry.endpoint.id, header = name, "a header of the endpoint is not sent"),
        }
    }
    headers
}

/// The destinations that were used lately.
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

    /// The destination of an endpoint, of this very version of it.
    pub(crate) fn get(&self, entry: &Arc<EndpointEntry>) -> Result<Arc<Destination>, UnusableUrl> {
        let id = entry.endpoint.id;
        if let Some(known) = self.locked().get(&id).filter(|known| Arc::ptr_eq(&known.entry, entry)) {
            return Ok(Arc::clone(known));
        }
        let made = Arc::new(Destination::prepare(Arc::clone(entry), &self.user_agent)?);
        let mut prepared = self.locked();
        if prepared.len() >= self.capacity && !prepared.contains_key(&id) {
            // Any: it costs its endpoint a few microseconds at its next request.
            let victim = prepared.keys().next().copied();
            victim.and_then(|victim| prepared.remove(&victim));
        }
        if self.capacity > 0 {
            prepared.insert(id, Arc::clone(&made));
        }
        Ok(made)
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<EndpointId, Arc<Destination>>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
