//! The dialer in its own process and through the proxy, with the same results.

use outrider_rpc::{DialError, Dialer, NoConnection, NoName};

use super::*;

pub(super) fn refused(rule: &str) -> DialError {
    DialError::Refused { rule: rule.to_owned() }
}

/// Dials in both ways. The results must be equal.
pub(super) async fn verdict(egress: &Egress, host: &str, port: u16) -> Result<(), DialError> {
    let served = Served::new(egress).await;
    let direct = soon(egress.dial(host, port)).await.map(drop);
    let proxied = soon(served.dialer().dial(host, port)).await.map(drop);
    assert_eq!(direct, proxied, "{host}:{port}");
    direct
}

#[tokio::test]
async fn what_the_policy_refuses_is_refused_before_any_look_up() {
    let resolver = Answers::with(&[]);
    let strict = egress(Options::default(), resolver.clone());
    let target = echo("127.0.0.1:0").await;
    for (host, rule) in [
        ("127.0.0.1", "ipv4-loopback"),
        ("::1", "ipv6-loopback"),
        ("::ffff:127.0.0.1", "ipv4-loopback"),
        ("10.0.0.1", "ipv4-private"),
        ("169.254.169.254", "ipv4-metadata"),
        ("64:ff9b::7f00:1", "ipv6-nat64"),
        ("localhost", "name-localhost"),
        ("a.localhost", "name-localhost"),
        ("redis", "name-single-label"),
        ("metadata.google.internal", "name-metadata"),
        ("127.1", "name-numeric"),
        ("2130706433", "name-numeric"),
        ("a..example.com", "name-syntax"),
    ] {
        assert_eq!(verdict(&strict, host, target.port()).await, Err(refused(rule)), "{host}");
    }
    assert_eq!(verdict(&strict, "example.com", 0).await, Err(refused("port-zero")));
    for port in [22, 25, 6379, 10_250, 27_017] {
        let error = verdict(&strict, "example.com", port).await.unwrap_err();
        assert_eq!(error, refused("port-of-other-service"), "{port}");
        assert_eq!(error.to_string(), "the port is not allowed (port-of-other-service)");
    }
    assert_eq!(resolver.asked(), 0);
}

#[tokio::test]
async fn the_switch_permits_loopback_and_nothing_else() {
    let resolver = Answers::with(&[]);
    let open = egress(development(), resolver.clone());
    let target = echo("127.0.0.1:0").await;
    for host in ["127.0.0.1", "::ffff:127.0.0.1", "localhost", "LOCALHOST.", "a.b.localhost"] {
        assert_eq!(verdict(&open, host, target.port()).await, Ok(()), "{host}");
    }
    for (host, rule) in [
        ("10.0.0.1", "ipv4-private"),
        ("0.0.0.0", "ipv4-this-network"),
        ("redis", "name-single-label"),
        ("127.1", "name-numeric"),
    ] {
        assert_eq!(verdict(&open, host, target.port()).await, Err(refused(rule)), "{host}");
    }
    assert_eq!(resolver.asked(), 0, "localhost needs no DNS");
}

#[tokio::test]
async fn ports_of_other_services_are_dialed_when_they_are_opened() {
    let Ok(listener) = TcpListener::bind("127.0.0.1:27019").await else {
        return eprintln!("SKIPPED: port 27019 is taken");
    };
    assert_eq!(
        verdict(&egress(development(), Answers::with(&[])), "127.0.0.1", 27_019).await,
        Err(refused("port-of-other-service"))
    );
    let open = egress(
        permitting(Policy {
            allow_loopback: true,
            allowed_ports: vec![27_019],
            ..Policy::default()
        }),
        Answers::with(&[]),
    );
    assert_eq!(verdict(&open, "127.0.0.1", 27_019).await, Ok(()));
    drop(listener);
}

#[tokio::test]
async fn an_answer_with_one_bad_address_is_refused_whole() {
    let table: [(&'static str, &[&str], &str); 7] = [
        ("a.example.com", &["10.0.0.1"], "ipv4-private"),
        ("b.example.com", &["8.8.8.8", "10.0.0.1"], "ipv4-private"),
        ("c.example.com", &["2a00:1450::1", "8.8.8.8", "::1"], "ipv6-loopback"),
        ("d.example.com", &["8.8.8.8", "::ffff:169.254.169.254"], "ipv4-metadata"),
        ("e.example.com", &["127.0.0.1", "8.8.8.8"], "ipv4-loopback"),
        ("f.example.com", &["64:ff9b::a00:1"], "ipv6-nat64"),
        ("g.example.com", &["8.8.8.8", "8.8.8.8", "0.0.0.0"], "ipv4-this-network"),
    ];
    for (name, answer, rule) in table {
        let strict = egress(Options::default(), Answers::with(&[(name, &[answer])]));
        assert_eq!(verdict(&strict, name, 443).await, Err(refused(rule)), "{name}");
    }
    let open =
        egress(development(), Answers::with(&[("h.example.com", &[&["127.0.0.1", "10.0.0.1"]])]));
    assert_eq!(verdict(&open, "h.example.com", 443).await, Err(refused("ipv4-private")));
}

#[tokio::test]
async fn a_name_is_looked_up_once_and_every_time() {
    let target = echo("127.0.0.1:0").await;
    let resolver = Answers::with(&[(
        "flip.example.com",
        &[&["127.0.0.1"], &["10.0.0.1"], &["127.0.0.1"], &[]],
    )]);
    let open = egress(development(), resolver.clone());
    let mut asked = 0;
    for expected in [
        Ok(()),
        Err(refused("ipv4-private")),
        Ok(()),
        Err(DialError::NotResolved(NoName::NoAddress)),
    ] {
        let dialed = soon(open.dial("Flip.Example.com.", target.port())).await;
        asked += 1;
        assert_eq!(resolver.asked(), asked);
        if let Ok(stream) = &dialed {
            assert_eq!(stream.tcp().peer_addr().unwrap(), target);
            assert!(stream.tcp().nodelay().unwrap());
        }
        assert_eq!(dialed.map(drop), expected);
    }
}

#[tokio::test]
async fn the_other_failures_are_told_apart() {
    let resolver = Answers::with(&[
        ("empty.example.com", &[&[]]),
        ("closed.example.com", &[&["127.0.0.1", "::ffff:127.0.0.1"]]),
    ]);
    let open = egress(development(), resolver);
    assert_eq!(
        verdict(&open, "missing.example.com", 443).await,
        Err(DialError::NotResolved(NoName::Missing))
    );
    assert_eq!(
        verdict(&open, "empty.example.com", 443).await,
        Err(DialError::NotResolved(NoName::NoAddress))
    );
    let poor = egress(development(), Arc::new(Unable));
    assert_eq!(
        verdict(&poor, "example.com", 443).await,
        Err(DialError::EgressUnavailable),
        "no fault of the name's"
    );
    let closed = verdict(&open, "closed.example.com", closed_port().await).await;
    assert_eq!(closed, Err(DialError::ConnectFailed(NoConnection::Refused)));
    let slow = egress(
        Options { dns_timeout: Duration::from_millis(50), ..development() },
        Arc::new(Held::default()),
    );
    assert_eq!(
        verdict(&slow, "slow.example.com", 443).await,
        Err(DialError::NotResolved(NoName::Late(Duration::from_millis(50))))
    );
}

#[tokio::test]
async fn our_own_listeners_cannot_be_reached() {
    let open = egress(development(), Answers::with(&[("us.example.com", &[&["127.0.0.1"]])]));
    let served = Served::new(&open).await;
    // The proxy is ready once it answers.
    let inside = echo("127.0.0.1:0").await;
    check_echo(soon(served.dialer().dial("127.0.0.1", inside.port())).await.unwrap()).await;
    for host in ["127.0.0.1", "localhost", "us.example.com"] {
        let dialed = soon(served.dialer().dial(host, served.address.port())).await;
        assert_eq!(dialed.unwrap_err(), refused("own-listener"), "{host}");
    }
    open.protect(inside);
    assert_eq!(verdict(&open, "127.0.0.1", inside.port()).await, Err(refused("own-listener")));
}

#[tokio::test]
async fn the_hosts_file_is_honored() {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let named = hosts.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next()?.parse::<std::net::Ipv4Addr>().ok()?;
        words
            .find(|name| !name.contains("localhost") && !name.contains('#'))
            .map(|name| (name.to_owned(), IpAddr::from(address)))
    });
    let Some((name, address)) = named else {
        return eprintln!("SKIPPED: the hosts file of this machine has no name to look up");
    };
    let resolver = crate::SystemResolver::new(&Options::default()).unwrap();
    assert!(soon(resolver.resolve(&name)).await.unwrap().contains(&address));
}

#[test]
fn options_out_of_their_bounds_are_refused_by_name() {
    let bad = |options: Options| {
        let given = options.policy().into();
        Egress::with_resolver(options, given, Answers::with(&[])).unwrap_err().to_string()
    };
    assert!(
        bad(Options { max_tunnels: 0, ..Options::default() }).starts_with("egress.max_tunnels: ")
    );
    assert!(
        bad(Options { max_head_bytes: 10, ..Options::default() })
            .starts_with("egress.max_head_bytes: ")
    );
    assert!(
        bad(Options { idle_timeout: Duration::ZERO, ..Options::default() })
            .starts_with("egress.idle_timeout: ")
    );
    assert!(
        bad(Options { source_address: Some("0.0.0.0".parse().unwrap()), ..Options::default() })
            .starts_with("egress.source_address: ")
    );
}

/// Most of these are URLs that the model refuses, but enough are accepted.
const URLS: &str = "https?://[a-zA-Z0-9.\\[:\\]-]{1,16}(:[0-9]{1,5})?\
    (/[a-z0-9.%/'~;=]{0,12})?(\\?[a-z'&=?/\\[\\]]{0,8})?";

proptest::proptest! {
    /// The client that sends requests must read URLs as the model does.
    #[test]
    fn urls_that_the_model_takes_are_read_alike_by_the_sender(text in URLS) {
        let policy = Policy { allow_loopback: true, ..Policy::default() };
        if let Ok(url) = outrider_model::url::WebhookUrl::parse(&text, &policy) {
            let uri: http::Uri = url.as_str().parse().unwrap();
            let host = uri.host().unwrap();
            proptest::prop_assert_eq!(host.trim_start_matches('[').trim_end_matches(']'),
                url.host());
            proptest::prop_assert_eq!(uri.scheme_str(), Some(url.scheme()));
            proptest::prop_assert_eq!(uri.path_and_query().unwrap().as_str(), url.path_and_query());
            let default = if url.is_https() { 443 } else { 80 };
        proptest::prop_assert_eq!(uri.port_u16().unwrap_or(default), url.port());
        }
    }
}
