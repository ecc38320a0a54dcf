//! The only way to open a connection to the outside: check the name, look it up once, check all of
//! its addresses, and dial those.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, LazyLock},
};

use async_trait::async_trait;
use outrider_failpoints::{Point, pass};
use outrider_model::address::{Basis, Judged, Policy, Refused, is_localhost};
use outrider_rpc::{ConnectionSlots, DialError, Dialer, NoConnection, NoName, Socket};
use outrider_settings::Section as _;
use outrider_telemetry::{
    Hop, Kind, TraceContext,
    catalog::egress::{BYTES, DIAL_SECONDS, DIALS, DNS_SECONDS, REFUSALS, SECTION},
    metrics::{self, ByIndex},
};
use tokio::{
    net::TcpStream,
    sync::{Semaphore, watch},
    time::timeout,
};

use crate::{
    connect::connect,
    cut::refused,
    options::{Given, Options, StartError},
    own::OwnListeners,
    resolve::{NoAddress, Resolve, SystemResolver},
};

const OWN_LISTENER: Refused = Refused::new("own-listener", "an address of this service");
const PORT_ZERO: Refused = Refused::new("port-zero", "port 0");

/// The egress. Clones share everything. It is a dialer for its own process, and `serve` makes it a
/// proxy for others.
#[derive(Clone)]
pub struct Egress {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) given: Given,
    pub(crate) tunnels: Arc<Semaphore>,
    pub(crate) waiting: ConnectionSlots,
    resolver: Arc<dyn Resolve>,
    own: OwnListeners,
}

/// The result of examining a permitted host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// The host, and the reason why it is permitted.
    pub judged: Judged,
    /// Each of its addresses once, at least one. The host is dialed only if all of them are
    /// permitted.
    pub addresses: Vec<(SocketAddr, Result<Basis, Refused>)>,
}

/// A connection to the outside, and the reason why it was permitted.
pub(crate) struct Dialed {
    pub(crate) stream: TcpStream,
    pub(crate) host: String,
    pub(crate) target: SocketAddr,
    pub(crate) policies: watch::Receiver<Arc<Policy>>,
}

/// The reason why a host has no addresses to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// The policy refuses the host or the port.
    Refused(Refused),
    /// The name has no address.
    NotResolved(NoName),
    /// The name could not be looked up. This is not a fault of the host.
    Unable,
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

impl Egress {
    /// Uses the system's resolver. Fails if a setting is out of its bounds.
    pub fn new(options: Options, given: Given) -> Result<Self, StartError> {
        let resolver = SystemResolver::new(&options)?;
        Self::with_resolver(options, given, Arc::new(resolver))
    }

    /// Uses the caller's resolver, whose answers are checked like any other's.
    pub fn with_resolver(
        options: Options,
        given: Given,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, StartError> {
        options.check()?;
        metrics::expose(&SECTION);
        LazyLock::force(&DIALS_BY_RESULT);
        for direction in ["out", "in"] {
            BYTES.with_label_values(&[direction]);
        }
        if given.policy.get().allow_loopback {
            tracing::warn!(
                "the egress permits LOOPBACK addresses (allow_loopback): for development only, \
                    never where others set URLs"
            );
        }
        let inner = Inner {
            tunnels: Arc::new(Semaphore::new(options.max_tunnels)),
            waiting: ConnectionSlots::new(options.max_waiting, 0),
            resolver,
            own: OwnListeners::default(),
            options,
            given,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Refuses connections to a listener of this process, even if loopback is permitted. `serve`
    /// protects its own listener.
    pub fn protect(&self, listener: SocketAddr) {
        self.inner.own.add(listener);
    }

    /// Returns what the policy in force says about a host and port, and about each address of the
    /// host. Opens no connection.
    pub async fn examine(&self, host: &str, port: u16) -> Result<Examined, Stopped> {
        self.examine_by(&self.inner.given.policy.get(), host, port).await
    }

    async fn examine_by(
        &self,
        policy: &Policy,
        host: &str,
        port: u16,
    ) -> Result<Examined, Stopped> {
        if port == 0 {
            return Err(Stopped::Refused(PORT_ZERO));
        }
        let judged = policy.judge(host, port).map_err(Stopped::Refused)?;
        let (name, found) = match &judged {
            Judged::Address(address, _) => (None, vec![*address]),
            Judged::Name(name) => (Some(name), self.resolve(name.as_str()).await?),
        };
        let mut addresses: Vec<(SocketAddr, Result<Basis, Refused>)> =
            Vec::with_capacity(found.len());
        // Exactly the checked address is dialed: an IPv4-mapped address as the IPv4 address.
        for address in found.into_iter().map(|address| address.to_canonical()) {
            let target = SocketAddr::new(address, port);
            if addresses.iter().any(|(known, _)| *known == target) {
                continue;
            }
            let mut verdict = policy.judge_address(name, address, port);
            if verdict.is_ok()
                && self.inner.own.contains(target).map_err(|error| unavailable(&error))?
            {
                verdict = Err(OWN_LISTENER);
            }
            addresses.push((target, verdict));
        }
        Ok(Examined { judged, addresses })
    }

    /// Returns the addresses that may be dialed for a host and port. Logs a line if there are none.
    async fn vet(
        &self,
        policy: &Policy,
        host: &str,
        port: u16,
    ) -> Result<Vec<SocketAddr>, DialError> {
        let refused = |refused: Refused, address: Option<IpAddr>| {
            let address = address.map(tracing::field::display);
            REFUSALS.with_label_values(&[refused.rule]).inc();
            tracing::info!(
                decision = "refused",
                host,
                port,
                rule = refused.rule,
                address,
                "an outgoing connection is refused"
            );
            DialError::Refused { rule: refused.rule.to_owned() }
        };
        let examined =
            self.examine_by(policy, host, port).await.map_err(|stopped| match stopped {
                Stopped::Refused(refusal) => refused(refusal, None),
                Stopped::NotResolved(why) => {
                    let error = DialError::NotResolved(why);
                    tracing::info!(decision = "not-resolved", host, port, %error,
                    "an outgoing connection has no address");
                    error
                }
                Stopped::Unable => DialError::EgressUnavailable,
            })?;
        let vet = |(target, verdict): (SocketAddr, Result<Basis, Refused>)| match verdict {
            Ok(_) => Ok(target),
            Err(refusal) => Err(refused(refusal, Some(target.ip()))),
        };
        examined.addresses.into_iter().map(vet).collect()
    }

    /// Returns all addresses of a permitted name, at least one.
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, Stopped> {
        if is_localhost(name) {
            // Only the development switch, or an entry of the operator's lists, permits this name.
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let timed = DNS_SECONDS.start_timer();
        let resolved =
            timeout(self.inner.options.dns_timeout, self.inner.resolver.resolve(name)).await;
        timed.observe_duration();
        match resolved {
            Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
            Ok(Ok(_)) => Err(Stopped::NotResolved(NoName::NoAddress)),
            Ok(Err(error @ NoAddress::Unable(_))) => Err(unavailable(&error)),
            Ok(Err(NoAddress::Unknown(why))) => Err(Stopped::NotResolved(why)),
            Err(_) => {
                tracing::warn!(name, "the resolver did not answer in time");
                Err(Stopped::NotResolved(NoName::Late(self.inner.options.dns_timeout)))
            }
        }
    }
}

impl Egress {
    /// Like [`Dialer::dial`], in a span under `parent`.
    pub(crate) async fn dial_within(
        &self,
        parent: Option<&TraceContext>,
        kind: Kind,
        host: &str,
        port: u16,
    ) -> Result<Dialed, DialError> {
        let hop = Hop::child(kind, "egress CONNECT", parent);
        hop.set_with("server.address", || host.to_owned());
        hop.set("server.port", i64::from(port));
        let timed = DIAL_SECONDS.start_timer();
        pass(Point::BeforeDial);
        // Follows policies from before the check, so that no later one is missed.
        let policies = self.inner.given.policy.follow();
        let policy = Arc::clone(&policies.borrow());
        let dialed = match self.vet(&policy, host, port).await {
            Ok(vetted) => connect(vetted, &self.inner.options).await,
            Err(error) => Err(error),
        };
        let dialed = dialed.and_then(|stream| {
            // A connection that is broken already has no peer.
            let target =
                stream.peer_addr().map_err(|_| DialError::ConnectFailed(NoConnection::Reset))?;
            Ok(Dialed { stream, host: host.to_owned(), target, policies })
        });
        pass(Point::AfterDial);
        timed.observe_duration();
        DIALS_BY_RESULT.add(result_index(&dialed), 1);
        if let Err(error) = &dialed {
            hop.fail(&error.to_string());
        }
        dialed
    }
}

fn unavailable(error: &dyn fmt::Display) -> Stopped {
    tracing::error!(%error, "an outgoing connection cannot be tried: no fault of its \
        destination's");
    Stopped::Unable
}

const RESULTS: [&str; 5] =
    ["connected", "refused", "not-resolved", "connect-failed", "unavailable"];
static DIALS_BY_RESULT: LazyLock<ByIndex> = LazyLock::new(|| ByIndex::new(&DIALS, &RESULTS));

/// Returns the index in [`RESULTS`].
fn result_index(dialed: &Result<Dialed, DialError>) -> usize {
    match dialed {
        Ok(_) => 0,
        Err(DialError::Refused { .. }) => 1,
        Err(DialError::NotResolved(_)) => 2,
        Err(DialError::ConnectFailed(_)) => 3,
        Err(DialError::EgressUnavailable) => 4,
    }
}

#[async_trait]
impl Dialer for Egress {
    async fn dial(&self, host: &str, port: u16) -> Result<Socket, DialError> {
        let dialed = self
            .dial_within(outrider_telemetry::current().as_ref(), Kind::Internal, host, port)
            .await;
        dialed.map(|Dialed { stream, host, target, policies }| {
            Socket::from(stream).cut_when(refused(policies, host, target))
        })
    }
}
