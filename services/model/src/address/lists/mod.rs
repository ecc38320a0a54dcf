//! The lists of an installation: tables of what they open and what they never open, and a second
//! implementation that must agree with the first.

mod naive;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::{prelude::*, sample::select};

use super::*;

fn entries(texts: &[&str]) -> Vec<Entry> {
    texts
        .iter()
        .map(|text| text.parse().unwrap_or_else(|error| panic!("{text}: {error}")))
        .collect()
}

fn policy(allow: &[&str], deny: &[&str]) -> Policy {
    Policy { allow: entries(allow), deny: entries(deny), ..Policy::default() }
}

/// What becomes of a connection to a host that has these addresses, if it is a name: the rule, or
/// what each address rests on.
fn dialed(
    policy: &Policy,
    host: &str,
    port: u16,
    addresses: &[&str],
) -> Result<Vec<Basis>, &'static str> {
    match policy.judge(host, port).map_err(|refused| refused.rule)? {
        Judged::Address(_, basis) => Ok(vec![basis]),
        Judged::Name(name) => {
            let judge =
                |text: &&str| policy.judge_address(Some(&name), text.parse().unwrap(), port);
            addresses.iter().map(judge).collect::<Result<_, _>>().map_err(|refused| refused.rule)
        }
    }
}

#[test]
fn networks_and_addresses_open_what_they_cover_at_their_ports() {
    let policy = policy(
        &["10.20.0.0/16:8080-8090", "10.9.8.7", "[fd12::/16]:8443", "10.9.8.7:6379", "127.0.0.5"],
        &[],
    );
    let at = |host, port| dialed(&policy, host, port, &[]);
    assert_eq!(at("10.20.255.1", 8085), Ok(vec![Basis::Allowed(0)]));
    assert_eq!(at("::ffff:10.20.255.1", 8090), Ok(vec![Basis::Allowed(0)]));
    assert_eq!(at("10.20.255.1", 8091), Err("ipv4-private"));
    assert_eq!(at("10.21.0.0", 8085), Err("ipv4-private"));
    assert_eq!(at("10.9.8.7", 443), Ok(vec![Basis::Allowed(1)]));
    assert_eq!(
        at("10.9.8.7", 5432),
        Err("port-of-other-service"),
        "an entry without ports leaves the rule about ports"
    );
    assert_eq!(at("10.9.8.7", 6379), Ok(vec![Basis::Allowed(3)]), "the entry with the port counts");
    assert_eq!(at("fd12::9", 8443), Ok(vec![Basis::Allowed(2)]));
    assert_eq!(at("fd12::9", 443), Err("ipv6-unique-local"));
    assert_eq!(at("127.0.0.5", 80), Ok(vec![Basis::Allowed(4)]));
    assert_eq!(at("127.0.0.1", 80), Err("ipv4-loopback"));
    // A public name may have an allowed address.
    assert_eq!(
        dialed(&policy, "x.example.com", 8081, &["8.8.8.8", "10.20.0.9"]),
        Ok(vec![Basis::BuiltIn, Basis::Allowed(0)])
    );
    assert_eq!(
        dialed(&policy, "x.example.com", 8081, &["10.20.0.9", "10.9.8.6"]),
        Err("ipv4-private")
    );
}

#[test]
fn names_open_themselves_and_their_private_addresses_only() {
    let policy = policy(
        &["receiver:8000", "*.svc.cluster.local", "printer.local", "db.example.com:5432"],
        &[],
    );
    let at = |host, port, address| dialed(&policy, host, port, &[address]);
    assert_eq!(at("receiver", 8000, "172.18.0.3"), Ok(vec![Basis::Allowed(0)]));
    assert_eq!(at("RECEIVER.", 8000, "8.8.8.8"), Ok(vec![Basis::BuiltIn]));
    assert_eq!(at("receiver", 8001, "172.18.0.3"), Err("name-single-label"));
    assert_eq!(at("hooks.shop.svc.cluster.local", 80, "10.96.0.7"), Ok(vec![Basis::Allowed(1)]));
    assert_eq!(at("svc.cluster.local", 80, "10.96.0.7"), Err("name-internal"));
    assert_eq!(at("xsvc.cluster.local", 80, "10.96.0.7"), Err("name-internal"));
    assert_eq!(at("printer.local", 80, "fd00::7"), Ok(vec![Basis::Allowed(2)]));
    assert_eq!(at("a.printer.local", 80, "fd00::7"), Err("name-internal"));
    assert_eq!(at("db.example.com", 5432, "100.64.0.1"), Ok(vec![Basis::Allowed(3)]));
    assert_eq!(at("db.example.com", 443, "10.0.0.1"), Err("ipv4-private"));
    for (address, rule) in [
        ("127.0.0.1", "ipv4-loopback"),
        ("::1", "ipv6-loopback"),
        ("169.254.1.1", "ipv4-link-local"),
        ("fe80::1", "ipv6-link-local"),
        ("0.0.0.0", "ipv4-this-network"),
        ("::", "ipv6-unspecified"),
        ("169.254.169.254", "ipv4-metadata"),
        ("fd00:ec2::254", "ipv6-metadata"),
        ("224.0.0.1", "ipv4-multicast"),
        ("192.0.2.1", "ipv4-documentation"),
    ] {
        assert_eq!(at("receiver", 8000, address), Err(rule), "{address}");
    }
}

#[test]
fn a_denial_stands_above_what_allows() {
    let policy = Policy {
        allow_loopback: true,
        ..policy(
            &["10.0.0.0/8", "*.corp.example", "[64:ff9b::/96]:443"],
            &["10.1.0.0/16", "*.bad.corp.example", "8.8.8.8:443", "127.0.0.1"],
        )
    };
    let at = |host, port, address| dialed(&policy, host, port, &[address]);
    assert_eq!(at("10.2.0.1", 443, ""), Ok(vec![Basis::Allowed(0)]));
    assert_eq!(at("10.1.0.1", 443, ""), Err("denied"));
    assert_eq!(
        at("x.corp.example", 443, "10.1.0.1"),
        Err("denied"),
        "each address of an allowed name is judged"
    );
    assert_eq!(at("x.bad.corp.example", 443, "10.2.0.1"), Err("denied"));
    assert_eq!(at("8.8.8.8", 443, ""), Err("denied"));
    assert_eq!(at("64:ff9b::808:808", 443, ""), Err("denied"), "also where IPv6 leads to it");
    assert_eq!(at("8.8.8.8", 80, ""), Ok(vec![Basis::BuiltIn]));
    assert_eq!(at("localhost", 80, "127.0.0.1"), Err("denied"));
    let refused = policy.judge("10.1.0.1", 443).unwrap_err();
    assert_eq!((refused.denied_by, refused.to_string().contains("10.1")), (Some(0), false));
}

#[test]
fn metadata_services_are_opened_by_their_very_address_only() {
    for address in metadata::all() {
        let text = address.to_string();
        let rule = if address.is_ipv4() { "ipv4-metadata" } else { "ipv6-metadata" };
        let wide = match address {
            IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & !1).to_string() + "/31",
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !1).to_string() + "/127",
        };
        for allow in [&[][..], &[wide.as_str()], &["meta.example.com", "*.example.com"]] {
            let policy = Policy { allow_loopback: true, ..policy(allow, &[]) };
            assert_eq!(dialed(&policy, &text, 80, &[]), Err(rule), "{text} by {allow:?}");
            assert_eq!(
                dialed(&policy, "meta.example.com", 80, &[&text]),
                Err(rule),
                "{text} by {allow:?}"
            );
        }
        let exact = policy(&[&wide, &text], &[]);
        assert_eq!(dialed(&exact, &text, 80, &[]), Ok(vec![Basis::Allowed(1)]), "{text}");
        let denied = policy(&[&text], &[&wide]);
        assert_eq!(dialed(&denied, &text, 80, &[]), Err("denied"), "{text}");
    }
    for (name, allow, expected) in [
        ("metadata.google.internal", "*.internal", Err("name-metadata")),
        ("metadata.google.internal", "*.google.internal", Err("name-metadata")),
        ("metadata.google.internal", "metadata.google.internal", Err("ipv4-metadata")),
        ("other.google.internal", "*.internal", Err("ipv4-metadata")),
        ("instance-data.ec2.internal", "*.ec2.internal", Err("name-metadata")),
    ] {
        assert_eq!(
            dialed(&policy(&[allow], &[]), name, 80, &["169.254.169.254"]),
            expected,
            "{name} by {allow}"
        );
    }
    let both = policy(&["metadata.google.internal", "169.254.169.254:80"], &[]);
    assert_eq!(
        dialed(&both, "metadata.google.internal", 80, &["169.254.169.254"]),
        Ok(vec![Basis::Allowed(1)])
    );
    assert_eq!(
        dialed(&policy(&["64:ff9b::/96"], &[]), "64:ff9b::a9fe:a9fe", 80, &[]),
        Err("ipv6-metadata")
    );
    assert_eq!(
        dialed(&policy(&["2002::/16"], &[]), "2002:a9fe:a9fe::1", 80, &[]),
        Err("ipv6-metadata")
    );
}

/// As the providers document them, in the words of who looks for one here.
const DOCUMENTED: [(&str, &str); 19] = [
    (
        "AWS EC2, Google, Azure, DigitalOcean, Hetzner, Oracle, OpenStack, Vultr, IBM",
        "169.254.169.254",
    ),
    ("AWS EC2 by IPv6", "fd00:ec2::254"),
    ("AWS ECS and Fargate", "169.254.170.2"),
    ("AWS EKS Pod Identity", "169.254.170.23"),
    ("AWS EKS Pod Identity by IPv6", "fd00:ec2::23"),
    ("Google by IPv6", "fd20:ce::254"),
    ("Google, on nodes of Kubernetes", "169.254.169.252"),
    ("Azure, the agent", "168.63.129.16"),
    ("Alibaba Cloud", "100.100.100.200"),
    ("Alibaba Cloud by IPv6", "fd00:100::100:200"),
    ("Oracle Cloud by IPv6", "fd00:c1::a9fe:a9fe"),
    ("Oracle Cloud Classic", "192.0.0.192"),
    ("OpenStack by IPv6", "fe80::a9fe:a9fe"),
    ("Akamai by IPv6", "fd00:a9fe:a9fe::1"),
    ("Tencent Cloud", "169.254.0.23"),
    ("Scaleway", "169.254.42.42"),
    ("Scaleway by IPv6", "fd00:42::42"),
    ("the usual one, mapped", "::ffff:169.254.169.254"),
    ("the usual one, translated", "64:ff9b::a9fe:a9fe"),
];

/// Names by which they are documented.
const DOCUMENTED_NAMES: [&str; 7] = [
    "metadata.google.internal",
    "metadata.goog",
    "METADATA.google.internal.",
    "instance-data.ec2.internal",
    "metadata.tencentyun.com",
    "metadata.platformequinix.com",
    "metadata.packet.net",
];

#[test]
fn the_metadata_services_of_the_known_providers_are_refused_unless_named_exactly() {
    let wide = &[
        "169.254.0.0/16",
        "100.64.0.0/10",
        "192.0.0.0/24",
        "168.63.0.0/16",
        "fc00::/7",
        "fe80::/10",
        "64:ff9b::/96",
    ];
    let named = &["meta.example.com", "*.example.com", "*.internal", "*.com", "*.net", "*.goog"];
    for (provider, text) in DOCUMENTED {
        for allow in [&[][..], wide, named] {
            let policy = Policy { allow_loopback: true, ..policy(allow, &[]) };
            for refused in
                [dialed(&policy, text, 80, &[]), dialed(&policy, "meta.example.com", 80, &[text])]
            {
                assert!(
                    refused.is_err_and(|rule| rule.ends_with("-metadata")),
                    "{provider}: {text} by {allow:?}"
                );
            }
        }
        if !text.starts_with("::ffff") {
            let exact = policy(&[&[text], &wide[..]].concat(), &[]);
            assert_eq!(
                dialed(&exact, text, 80, &[]),
                Ok(vec![Basis::Allowed(0)]),
                "{provider}: {text}"
            );
        }
    }
    for name in DOCUMENTED_NAMES {
        for allow in [&[][..], wide, named] {
            assert_eq!(
                dialed(&policy(allow, &[]), name, 80, &["8.8.8.8"]),
                Err("name-metadata"),
                "{name} by {allow:?}"
            );
        }
        let exact = policy(&[name.trim_end_matches('.')], &[]);
        assert!(dialed(&exact, name, 80, &["10.0.0.1"]).is_ok(), "{name}");
        assert_eq!(dialed(&exact, name, 80, &["169.254.169.254"]), Err("ipv4-metadata"), "{name}");
    }
    assert!(
        metadata::all()
            .iter()
            .all(|known| DOCUMENTED.iter().any(|(_, text)| *text == known.to_string()))
    );
    // The cache of names on a node of Kubernetes gives out no credentials: a network opens it, a
    // name does not.
    assert_eq!(
        dialed(&policy(named, &[]), "meta.example.com", 80, &["169.254.20.10"]),
        Err("ipv4-link-local")
    );
    assert!(dialed(&policy(wide, &[]), "169.254.20.10", 80, &[]).is_ok());
}

#[test]
fn what_is_no_destination_is_opened_by_nothing() {
    let all = policy(
        &["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1", "*.onion.example", "x.example"],
        &[],
    );
    for (host, rule) in [
        ("0.0.0.0", "ipv4-this-network"),
        ("0.0.0.1", "ipv4-this-network"),
        ("224.0.0.1", "ipv4-multicast"),
        ("255.255.255.255", "ipv4-broadcast"),
        ("::", "ipv6-unspecified"),
        ("ff02::1", "ipv6-multicast"),
        ("x.onion", "name-onion"),
        ("127.1", "name-numeric"),
        ("a..example", "name-syntax"),
        ("169.254.169.254", "ipv4-metadata"),
    ] {
        assert_eq!(dialed(&all, host, 443, &[]), Err(rule), "{host}");
    }
    for host in ["127.0.0.1", "10.0.0.1", "169.254.1.1", "::1", "fe80::1", "240.0.0.1"] {
        assert!(dialed(&all, host, 443, &[]).is_ok(), "{host} has an entry of its own");
    }
}

const NAMES: [&str; 9] = [
    "receiver",
    "a.local",
    "b.a.local",
    "shop.svc.cluster.local",
    "a.example.com",
    "b.a.example.com",
    "localhost",
    "metadata.google.internal",
    "other.internal",
];
const ADDRESSES: [&str; 16] = [
    "10.0.0.1",
    "10.0.0.2",
    "10.1.0.1",
    "172.16.0.9",
    "127.0.0.1",
    "169.254.1.1",
    "169.254.169.254",
    "100.100.100.200",
    "8.8.8.8",
    "0.0.0.0",
    "224.0.0.1",
    "::1",
    "fd00:ec2::254",
    "fd00:ec2::255",
    "2a00:1450::1",
    "::ffff:10.0.0.1",
];
const HOSTS: [&str; 22] = [
    "10.0.0.0/8",
    "10.0.0.0/30",
    "10.0.0.1",
    "10.1.0.0/16",
    "172.16.0.0/12",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "169.254.169.254",
    "100.64.0.0/10",
    "8.0.0.0/8",
    "0.0.0.0/1",
    "::/1",
    "fd00::/8",
    "fd00:ec2::254",
    "2a00:1450::/32",
    "receiver",
    "*.local",
    "a.local",
    "*.svc.cluster.local",
    "*.example.com",
    "metadata.google.internal",
    "*.internal",
];
const PORTS: [&str; 5] = ["", ":443", ":22", ":1-100", ":6379"];

prop_compose! {
    fn some_entry()(host in select(HOSTS.to_vec()), port in select(PORTS.to_vec())) -> Entry {
        let is_bracketed = host.contains("::") && !port.is_empty();
            let text =
                if is_bracketed { format!("[{host}]{port}") } else { format!("{host}{port}") };
        text.parse().unwrap()
    }
}

prop_compose! {
    fn some_policy()(
        allow_loopback: bool,
        allow in prop::collection::vec(some_entry(), 0..5),
        deny in prop::collection::vec(some_entry(), 0..3),
        opened in prop::option::of(Just(22)),
    ) -> Policy {
        Policy { allow_loopback, allowed_ports: opened.into_iter().collect(), allow, deny }
    }
}

proptest! {
    #[test]
    fn a_second_implementation_agrees(
        policy in some_policy(),
        name in select(NAMES.to_vec()),
        address in select(ADDRESSES.to_vec()),
        port in select(vec![22, 80, 443, 6379, 9000]),
    ) {
        let address = address.parse::<IpAddr>().unwrap();
        let canonical = address.to_canonical();
        let alone = policy.judge_address(None, address, port);
        prop_assert_eq!(alone.is_ok(), naive::address(&policy, None, canonical, port), "{:?}",
            alone);
        prop_assert_eq!(policy.judge(&address.to_string(), port).map(drop), alone.map(drop));
        let judged = policy.judge(name, port);
        let by_entry = naive::name(&policy, name, port);
        prop_assert_eq!(judged.is_ok(), by_entry.is_some(), "{:?}", judged);
        if let Ok(Judged::Name(judged)) = judged {
            let found = policy.judge_address(Some(&judged), address, port);
            prop_assert_eq!(found.is_ok(), naive::address(&policy, by_entry, canonical, port),
                "{:?}", found);
        }
    }

    #[test]
    fn a_further_denial_opens_nothing(
        policy in some_policy(),
        more in some_entry(),
        name in select(NAMES.to_vec()),
        address in select(ADDRESSES.to_vec()),
        port in select(vec![22, 443]),
    ) {
        let mut stricter = policy.clone();
        stricter.deny.push(more);
        for host in [name, address] {
            if dialed(&stricter, host, port, &[address]).is_ok() {
                prop_assert!(dialed(&policy, host, port, &[address]).is_ok());
            }
        }
    }

    #[test]
    fn without_lists_nothing_but_the_built_in_rules_counts(bits: u32, port in 1_u16..) {
        let address = Ipv4Addr::from_bits(bits);
        let is_public = classify(address.into()) == Classification::Allowed;
        let judged = Policy::default().judge(&address.to_string(), port);
        prop_assert_eq!(judged.is_ok(), is_public && ports::check(port, &[]).is_ok());
        // And whatever a policy allows by name, a name never leads to this machine or its link.
        let named = policy(&["*.example.com"], &[]);
        let Ok(Judged::Name(name)) = named.judge("a.example.com",
            443) else { panic!("it is allowed") };
        let found = named.judge_address(Some(&name), address.into(), 443);
        if address.is_loopback()
                    || address.is_link_local()
                    || address.is_unspecified()
                    || address.is_multicast()
                {
            prop_assert!(found.is_err());
        }
    }
}
