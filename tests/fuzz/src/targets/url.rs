//! URLs of endpoints: every reader understands an accepted URL alike, and the host that is looked
//! up is the one that was checked.

use std::{
    net::IpAddr,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use outrider_egress::{Egress, NoAddress, Options, Resolve};
use outrider_model::{
    address::{Judged, Policy, is_localhost},
    url::WebhookUrl,
};
use outrider_rpc::{DialError, Dialer, NoName};
use outrider_worker::fuzzed::destination;

use crate::runtime;

/// A resolver that knows no name, and remembers which names it was asked for.
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
        Err(NoAddress::Unknown(NoName::Missing))
    }
}

/// An egress and its resolver.
struct Bench {
    policy: Policy,
    egress: Egress,
    asked: Arc<Asked>,
}

impl Bench {
    fn new(policy: Policy) -> Self {
        let asked = Arc::new(Asked::default());
        let given = policy.clone().into();
        let egress = Egress::with_resolver(Options::default(), given, asked.clone())
            .expect("the options are good");
        Self { policy, egress, asked }
    }
}

static STRICT: LazyLock<Bench> = LazyLock::new(|| Bench::new(Policy::default()));
static LOOSE: LazyLock<Bench> = LazyLock::new(|| {
    Bench::new(Policy { allow_loopback: true, allowed_ports: vec![22, 5432], ..Policy::default() })
});
static LISTED: LazyLock<Bench> = LazyLock::new(|| {
    let entries =
        |texts: &[&str]| texts.iter().map(|text| text.parse().expect("it is an entry")).collect();
    Bench::new(Policy {
        allow: entries(&[
            "10.0.0.0/8",
            "[fd00::/8]:443",
            "receiver",
            "*.local",
            "*.internal:443",
            "a.example:6379",
        ]),
        deny: entries(&["10.1.0.0/16", "8.8.8.8", "*.b.example:443"]),
        ..Policy::default()
    })
});

/// Takes the text of a URL.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for bench in [&*STRICT, &*LOOSE, &*LISTED] {
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
    assert_eq!(
        WebhookUrl::parse(url.as_str(), policy).as_ref(),
        Ok(&url),
        "what is kept is what was judged"
    );
    let judged = policy.judge(url.host(), url.port()).expect("host and port were judged");
    let canonical = match &judged {
        Judged::Address(address, _) => address.to_string(),
        Judged::Name(name) => name.as_str().to_owned(),
    };
    assert_eq!(canonical, url.host());
    read_alike(&url);
    let sent = destination(url.as_str()).expect("it can be sent to");
    assert_eq!((sent.host.as_str(), sent.port, sent.tls), (url.host(), url.port(), url.is_https()));
    assert_eq!(
        (sent.host_header.as_str(), sent.uri.as_str()),
        (url.authority(), url.path_and_query())
    );
    host(&sent.host, bench);
}

/// Compares two other readers.
fn read_alike(url: &WebhookUrl) {
    let bare = |host: &str| host.trim_matches(['[', ']']).to_owned();
    let whatwg = ::url::Url::parse(url.as_str()).expect("it is a URL");
    assert_eq!(whatwg.as_str(), url.as_str());
    assert_eq!(whatwg.host_str().map(bare).as_deref(), Some(url.host()));
    assert_eq!(whatwg.port_or_known_default(), Some(url.port()));
    let uri: http::Uri = url.as_str().parse().expect("it is a URI");
    assert_eq!(uri.host().map(bare).as_deref(), Some(url.host()));
    assert_eq!(uri.authority().map(http::uri::Authority::as_str), Some(url.authority()));
    assert_eq!(
        uri.path_and_query().map(http::uri::PathAndQuery::as_str),
        Some(url.path_and_query())
    );
}

/// Checks a host that is dialed: the name that is looked up is the name that was checked, and an
/// address is checked itself.
fn host(host: &str, bench: &Bench) {
    let judged = bench.policy.judge(host, 443);
    match &judged {
        Ok(Judged::Address(address, basis)) => {
            return assert_eq!(bench.policy.judge_address(None, *address, 443), Ok(*basis));
        }
        // Such a name is never looked up. Both addresses of the loopback would be dialed.
        Ok(Judged::Name(name)) if is_localhost(name.as_str()) => {
            return assert!(bench.policy.allow_loopback);
        }
        _ => {}
    }
    let dialed = runtime::run(Duration::from_secs(60), bench.egress.dial(host, 443))
        .expect_err("nothing has an address");
    let asked = bench.asked.take();
    match (judged, dialed) {
        (Ok(Judged::Name(name)), DialError::NotResolved(_)) => {
            let name = name.as_str();
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase()
                || byte.is_ascii_digit()
                || b"-._".contains(&byte)));
            let absolute: Vec<_> =
                asked.iter().map(|asked| asked.strip_suffix('.').unwrap_or(asked)).collect();
            assert_eq!(absolute, [name]);
        }
        (Err(refused), DialError::Refused { rule }) => {
            assert!(asked.is_empty() && rule == refused.rule, "{rule}")
        }
        (judged, error) => panic!("{judged:?}, and then {error:?}"),
    }
}
