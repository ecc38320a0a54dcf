//! URLs of endpoints: one that is accepted means the same to all who read it, and the host that is looked up is the one that was judged.

use std::{
    net::IpAddr,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use outrider_egress::{Egress, NoAddress, Options, Resolve};
use outrider_model::{
    address::{Host, Policy, is_localhost},
    url::WebhookUrl,
};
use outrider_rpc::{DialError, Dialer};
use outrider_worker::fuzzed::destination;

use crate::runtime;

/// Knows no name, and remembers for which it was asked.
#[derive(Default)]
struct Asked(Mutex<Vec<String>>);

impl Asked {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("nobody panics"))
    }
}

#[async_trait]
impl Resolve for Asked {
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, NoAddress> {
        self.0.lock().expect("nobody panics").push(name.to_owned());
        Err(NoAddress::Unknown(String::new()))
    }
}

/// An egress and who it asks.
struct Bench {
    policy: Policy,
    egress: Egress,
    asked: Arc<Asked>,
}

impl Bench {
    fn new(policy: Policy) -> Self {
        let asked = Arc::new(Asked::default());
        let (allow_loopback, allowed_ports) = (policy.allow_loopback, policy.allowed_ports.clone());
        let options = Options { allow_loopback, allowed_ports, ..Options::default() };
        let egress = Egress::with_resolver(options, asked.clone()).expect("the options are good");
        Self { policy, egress, asked }
    }
}

static STRICT: LazyLock<Bench> = LazyLock::new(|| Bench::new(Policy::default()));
static LOOSE: LazyLock<Bench> = LazyLock::new(|| Bench::new(Policy { allow_loopback: true, allowed_ports: vec![22, 5432] }));

/// The text of a URL.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for bench in [&*STRICT, &*LOOSE] {
        judged(text, bench);
    }
}

fn judged(text: &str, bench: &Bench) {
    let policy = &bench.policy;
    host(text, bench);
    let url = match WebhookUrl::parse(text, policy) {
        Ok(url) => url,
        Err(error) => return assert!(error.to_string().len() < 200, "{error}"),
    };
    assert_eq!(WebhookUrl::parse(url.as_str(), policy).as_ref(), Ok(&url), "what is kept is what was judged");
    assert_eq!(policy.check_port(url.port()), Ok(()));
    let judged = policy.check_host(url.host()).expect("the host was judged");
    let canonical = match &judged {
        Host::Address(address) => address.to_string(),
        Host::Name(name) => name.clone(),
    };
    assert_eq!(canonical, url.host());
    read_alike(&url);
    let sent = destination(url.as_str()).expect("it can be sent to");
    assert_eq!((sent.host.as_str(), sent.port, sent.tls), (url.host(), url.port(), url.is_https()));
    assert_eq!((sent.host_header.as_str(), sent.uri.as_str()), (url.authority(), url.path_and_query()));
    host(&sent.host, bench);
}

/// Two other readers.
fn read_alike(url: &WebhookUrl) {
    let bare = |host: &str| host.trim_matches(['[', ']']).to_owned();
    let whatwg = ::url::Url::parse(url.as_str()).expect("it is a URL");
    assert_eq!(whatwg.as_str(), url.as_str());
    assert_eq!(whatwg.host_str().map(bare).as_deref(), Some(url.host()));
    assert_eq!(whatwg.port_or_known_default(), Some(url.port()));
    let uri: http::Uri = url.as_str().parse().expect("it is a URI");
    assert_eq!(uri.host().map(bare).as_deref(), Some(url.host()));
    assert_eq!(uri.authority().map(http::uri::Authority::as_str), Some(url.authority()));
    assert_eq!(uri.path_and_query().map(http::uri::PathAndQuery::as_str), Some(url.path_and_query()));
}

/// A host that is dialled: the name that is looked up is the one that was judged, and an address is judged by itself.
fn host(host: &str, bench: &Bench) {
    let judged = bench.policy.check_host(host);
    match &judged {
        Ok(Host::Address(address)) => return assert_eq!(bench.policy.check_address(*address), Ok(())),
        // Never looked up. Both would be dialled.
        Ok(Host::Name(name)) if is_localhost(name) => return assert!(bench.policy.allow_loopback),
        _ => {}
    }
    let dialled = runtime::run(Duration::from_secs(60), bench.egress.dial(host, 443)).expect_err("nothing has an address");
    let asked = bench.asked.take();
    match (judged, dialled) {
        (Ok(Host::Name(name)), DialError::NotResolved) => {
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte)));
            let absolute: Vec<_> = asked.iter().map(|asked| asked.strip_suffix('.').unwrap_or(asked)).collect();
            assert_eq!(absolute, [name.as_str()]);
        }
        (Err(refused), DialError::Refused { rule }) => assert!(asked.is_empty() && rule == refused.rule, "{rule}"),
        (judged, error) => panic!("{judged:?}, and then {error:?}"),
    }
}
