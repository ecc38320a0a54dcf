use proptest::prelude::*;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    classify::{IPV4, IPV6},
    *,
};

static STRICT: Policy = Policy {
    allow_loopback: false,
    allowed_ports: Vec::new(),
    allow: Vec::new(),
    deny: Vec::new(),
};
static DEVELOPMENT: Policy =
    Policy { allow_loopback: true, allowed_ports: Vec::new(), allow: Vec::new(), deny: Vec::new() };

/// Judges a host at a port that any web server may have.
fn host(policy: &Policy, host: &str) -> Result<Judged, Refused> {
    policy.judge(host, 443)
}

fn address_of(policy: &Policy, text: &str) -> Result<Basis, Refused> {
    policy.judge_address(None, text.parse().unwrap(), 443)
}

fn rule(text: &str) -> Option<&'static str> {
    match classify(text.parse().unwrap()) {
        Classification::Allowed => None,
        Classification::Refused(refused) => Some(refused.rule),
    }
}

#[test]
fn refuses_every_kind_of_special_address() {
    let table = [
        ("0.0.0.0", "ipv4-this-network"),
        ("0.1.2.3", "ipv4-this-network"),
        ("10.0.0.1", "ipv4-private"),
        ("100.64.0.1", "ipv4-shared"),
        ("100.100.100.200", "ipv4-shared"),
        ("127.0.0.1", "ipv4-loopback"),
        ("127.255.255.254", "ipv4-loopback"),
        ("169.254.169.254", "ipv4-link-local"),
        ("172.16.0.1", "ipv4-private"),
        ("172.31.255.255", "ipv4-private"),
        ("192.0.0.192", "ipv4-protocol-assignments"),
        ("192.0.2.1", "ipv4-documentation"),
        ("192.31.196.1", "ipv4-as112"),
        ("192.52.193.1", "ipv4-amt"),
        ("192.88.99.1", "ipv4-6to4-relay"),
        ("192.168.1.1", "ipv4-private"),
        ("192.175.48.1", "ipv4-as112"),
        ("198.18.0.1", "ipv4-benchmarking"),
        ("198.19.255.255", "ipv4-benchmarking"),
        ("198.51.100.1", "ipv4-documentation"),
        ("203.0.113.1", "ipv4-documentation"),
        ("224.0.0.1", "ipv4-multicast"),
        ("239.255.255.250", "ipv4-multicast"),
        ("240.0.0.1", "ipv4-reserved"),
        ("255.255.255.255", "ipv4-broadcast"),
        ("168.63.129.16", "ipv4-cloud-platform"),
        ("::", "ipv6-unspecified"),
        ("::1", "ipv6-loopback"),
        ("::2", "ipv6-embedded-ipv4"),
        ("::7f00:1", "ipv6-embedded-ipv4"),
        ("::ffff:0:7f00:1", "ipv6-embedded-ipv4"),
        ("::5efe:7f00:1", "ipv6-embedded-ipv4"),
        ("2a00:1450::5efe:7f00:1", "ipv6-isatap"),
        ("2a00:1450::200:5efe:a00:1", "ipv6-isatap"),
        ("64:ff9b::a9fe:a9fe", "ipv6-nat64"),
        ("64:ff9b::808:808", "ipv6-nat64"),
        ("64:ff9b:1::1", "ipv6-nat64"),
        ("100::1", "ipv6-discard"),
        ("100:0:0:1::1", "ipv6-dummy"),
        ("2001::1", "ipv6-teredo"),
        ("2001:2::1", "ipv6-benchmarking"),
        ("2001:4:112::1", "ipv6-protocol-assignments"),
        ("2001:10::1", "ipv6-protocol-assignments"),
        ("2001:1ff:ffff::1", "ipv6-protocol-assignments"),
        ("2001:db8::1", "ipv6-documentation"),
        ("2002:7f00:1::1", "ipv6-6to4"),
        ("2620:4f:8000::1", "ipv6-as112"),
        ("3fff::1", "ipv6-documentation"),
        ("3fff:fff::1", "ipv6-documentation"),
        ("4000::1", "ipv6-not-global"),
        ("5f00::1", "ipv6-segment-routing"),
        ("8000::1", "ipv6-not-global"),
        ("fc00::1", "ipv6-unique-local"),
        ("fd00:ec2::254", "ipv6-unique-local"),
        ("fe80::1", "ipv6-link-local"),
        ("fec0::1", "ipv6-site-local"),
        ("ff02::1", "ipv6-multicast"),
        ("400::1", "ipv6-not-global"),
        ("1fff::1", "ipv6-not-global"),
        ("::ffff:127.0.0.1", "ipv4-loopback"),
        ("::ffff:10.0.0.1", "ipv4-private"),
        ("::ffff:169.254.169.254", "ipv4-link-local"),
        ("::ffff:168.63.129.16", "ipv4-cloud-platform"),
    ];
    for (text, expected) in table {
        assert_eq!(rule(text), Some(expected), "{text}");
    }
}

#[test]
fn allows_public_addresses() {
    for text in [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "168.63.129.15",
        "168.63.129.17",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.0.3.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "203.0.112.255",
        "203.0.114.0",
        "223.255.255.255",
        "::ffff:8.8.8.8",
        "2000::1",
        "2001:200::1",
        "2001:4860:4860::8888",
        "2001:db7:ffff::1",
        "2001:db9::1",
        "2003::1",
        "2606:4700:4700::1111",
        "2620:4f:7fff::1",
        "2620:4f:8001::1",
        "2a00:1450:4001::200e",
        "3ffe::1",
        "3fff:1000::1",
    ] {
        assert_eq!(rule(text), None, "{text}");
    }
}

/// Returns every prefix of both tables, as the 128 bits of its first and of its last address.
fn ranges() -> Vec<(u128, u128, bool)> {
    let v4 = IPV4.iter().map(|rule| {
        let first = rule.0.to_bits();
        (
            u128::from(first),
            u128::from(first | u32::MAX.checked_shr(rule.1.into()).unwrap_or(0)),
            true,
        )
    });
    let v6 = IPV6.iter().map(|rule| {
        let first = rule.0.to_bits();
        (first, first | u128::MAX.checked_shr(rule.1.into()).unwrap_or(0), false)
    });
    v4.chain(v6).collect()
}

fn address(bits: u128, is_v4: bool) -> IpAddr {
    if is_v4 {
        Ipv4Addr::from_bits(u32::try_from(bits).unwrap()).into()
    } else {
        Ipv6Addr::from_bits(bits).into()
    }
}

#[test]
fn prefixes_are_refused_to_both_edges_and_their_neighbors_judged_by_others() {
    for (first, last, is_v4) in ranges() {
        for edge in [first, last] {
            let address = address(edge, is_v4);
            assert!(matches!(classify(address), Classification::Refused(_)), "{address}");
        }
        let top = if is_v4 { u128::from(u32::MAX) } else { u128::MAX };
        for neighbor in [first.checked_sub(1), last.checked_add(1).filter(|next| *next <= top)]
            .into_iter()
            .flatten()
        {
            let refused = !matches!(classify(address(neighbor, is_v4)), Classification::Allowed);
            let global = is_v4
                || neighbor >> 125 == 1
                || Ipv6Addr::from_bits(neighbor).to_ipv4_mapped().is_some();
            let listed = ranges()
                .iter()
                .any(|range| range.2 == is_v4 && (range.0..=range.1).contains(&neighbor));
            assert_eq!(refused, listed || !global, "{}", address(neighbor, is_v4));
        }
    }
}

proptest! {
    #[test]
    fn nothing_within_a_prefix_passes(index in 0..ranges().len(), offset: u128) {
        let (first, last, is_v4) = ranges()[index];
        let within = first + (offset & (last - first));
        // An IPv4-mapped address is judged as the address that it maps.
        prop_assume!(is_v4 || Ipv6Addr::from_bits(within).to_ipv4_mapped().is_none());
        prop_assert!(matches!(classify(address(within, is_v4)), Classification::Refused(_)));
    }

    #[test]
    fn mapped_addresses_are_judged_as_what_they_map(bits: u32) {
        let v4 = Ipv4Addr::from_bits(bits);
        prop_assert_eq!(classify(v4.into()), classify(v4.to_ipv6_mapped().into()));
    }

    #[test]
    fn nothing_outside_global_unicast_passes(bits: u128) {
        let address = Ipv6Addr::from_bits(bits);
        if bits >> 125 != 1 && address.to_ipv4_mapped().is_none() {
            prop_assert!(matches!(classify(address.into()), Classification::Refused(_)));
        }
    }

    #[test]
    fn no_host_text_panics(text: String) {
        let _ = host(&DEVELOPMENT, &text);
        let _ = host(&STRICT, &text);
    }
}

#[test]
fn the_switch_permits_loopback_and_nothing_else() {
    for text in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
        assert!(address_of(&STRICT, text).is_err(), "{text}");
        assert_eq!(address_of(&DEVELOPMENT, text), Ok(Basis::BuiltIn), "{text}");
    }
    for text in [
        "0.0.0.0",
        "10.0.0.1",
        "169.254.169.254",
        "::",
        "::7f00:1",
        "fe80::1",
        "128.0.0.0",
        "8.8.8.8",
    ] {
        assert_eq!(address_of(&DEVELOPMENT, text), address_of(&STRICT, text), "{text}");
    }
    for name in ["localhost", "LOCALHOST.", "a.b.localhost"] {
        assert_eq!(host(&STRICT, name).unwrap_err().rule, "name-localhost", "{name}");
        assert_eq!(host(&DEVELOPMENT, name).map(drop), Ok(()), "{name}");
    }
    assert!(host(&DEVELOPMENT, "localdomain").is_err());
    assert!(host(&DEVELOPMENT, "intranet").is_err());
}

#[test]
fn names_of_the_inside_are_refused_by_whole_labels() {
    let refused = [
        ("intranet", "name-internal"),
        ("router", "name-single-label"),
        ("metadata", "name-single-label"),
        ("printer.local", "name-internal"),
        ("PRINTER.LOCAL.", "name-internal"),
        ("metadata.google.internal", "name-metadata"),
        ("orders.shop.svc", "name-internal"),
        ("orders.shop.svc.cluster.local", "name-internal"),
        ("nas.home.arpa", "name-arpa"),
        ("1.0.0.127.in-addr.arpa", "name-arpa"),
        ("metadata.goog", "name-metadata"),
        ("x.onion", "name-onion"),
        ("x.alt", "name-onion"),
        ("hooks.invalid", "name-invalid"),
        ("127.1", "name-numeric"),
        ("2130706433", "name-numeric"),
        ("0x7f000001", "name-numeric"),
        ("127.0.0.0x1", "name-numeric"),
        ("0177.0.0.1", "name-numeric"),
        ("127.0.0.1.", "name-numeric"),
        ("a.0x", "name-numeric"),
        ("", "name-syntax"),
        (".", "name-syntax"),
        ("a..example.com", "name-syntax"),
        ("example.com..", "name-syntax"),
        ("-a.example.com", "name-syntax"),
        ("a b.example.com", "name-syntax"),
        ("a%2eexample.com", "name-syntax"),
        ("b\u{fc}cher.example.com", "name-syntax"),
        ("fe80::1%eth0", "name-syntax"),
    ];
    for (name, rule) in refused {
        assert_eq!(host(&STRICT, name).unwrap_err().rule, rule, "{name}");
    }
    assert!(host(&STRICT, &format!("{}.com", "a".repeat(64))).is_err());
    assert!(host(&STRICT, &["a"; 128].join(".")).is_err());
    for name in [
        "example.com",
        "EXAMPLE.com.",
        "localhost.example.com",
        "metadata.google.internal.example.com",
        "local.example.com",
        "notlocal.com",
        "xn--bcher-kva.example.com",
        "a_b.example.com",
        "mylocal.dev",
        "4.example.com",
        "svc.example.com",
    ] {
        assert_eq!(host(&STRICT, name).map(drop), Ok(()), "{name}");
    }
    assert!(host(&STRICT, &format!("{}.com", "a".repeat(63))).is_ok());
}

#[test]
fn hosts_become_addresses_or_canonical_names() {
    let Ok(Judged::Name(name)) = host(&STRICT, "Example.COM.") else { panic!("it is a name") };
    assert_eq!((name.as_str(), name.basis()), ("example.com", Basis::BuiltIn));
    let address = Judged::Address("8.8.8.8".parse().unwrap(), Basis::BuiltIn);
    assert_eq!(host(&STRICT, "::ffff:8.8.8.8"), Ok(address));
    assert_eq!(
        host(&STRICT, "10.0.0.1").unwrap_err().to_string(),
        "a private address is not allowed (ipv4-private)"
    );
}
