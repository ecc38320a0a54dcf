//! The rules of addresses: the special-purpose registries of IANA.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::refused::Refused;

/// The result of the rules for an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Classification {
    /// An address of the public internet.
    Allowed,
    /// Any other address.
    Refused(Refused),
}

pub(super) type Rule<A> = (A, u8, &'static str, &'static str);

const fn v4(a: u8, b: u8, c: u8, d: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, d)
}

/// The IANA special-purpose registry, multicast, and public addresses that clouds reserve. The
/// first match names the rule.
pub(super) const IPV4: [Rule<Ipv4Addr>; 20] = [
    (v4(0, 0, 0, 0), 8, "ipv4-this-network", "an address of \"this network\""),
    (v4(10, 0, 0, 0), 8, "ipv4-private", "a private address"),
    (v4(100, 64, 0, 0), 10, "ipv4-shared", "an address shared by carriers"),
    (v4(127, 0, 0, 0), 8, "ipv4-loopback", "a loopback address"),
    (v4(169, 254, 0, 0), 16, "ipv4-link-local", "a link-local address"),
    (v4(172, 16, 0, 0), 12, "ipv4-private", "a private address"),
    (v4(192, 0, 0, 0), 24, "ipv4-protocol-assignments", "an address assigned to protocols"),
    (v4(192, 0, 2, 0), 24, "ipv4-documentation", "an address for documentation"),
    (v4(192, 31, 196, 0), 24, "ipv4-as112", "an address of the AS112 project"),
    (v4(192, 52, 193, 0), 24, "ipv4-amt", "an address of multicast tunnels"),
    (v4(192, 88, 99, 0), 24, "ipv4-6to4-relay", "an address of 6to4 relays"),
    (v4(192, 168, 0, 0), 16, "ipv4-private", "a private address"),
    (v4(192, 175, 48, 0), 24, "ipv4-as112", "an address of the AS112 project"),
    (v4(198, 18, 0, 0), 15, "ipv4-benchmarking", "an address for benchmarks"),
    (v4(198, 51, 100, 0), 24, "ipv4-documentation", "an address for documentation"),
    (v4(203, 0, 113, 0), 24, "ipv4-documentation", "an address for documentation"),
    (v4(224, 0, 0, 0), 4, "ipv4-multicast", "a multicast address"),
    (v4(255, 255, 255, 255), 32, "ipv4-broadcast", "the broadcast address"),
    (v4(240, 0, 0, 0), 4, "ipv4-reserved", "a reserved address"),
    // Reachable from every virtual machine of Azure, and leads to the secrets of the instance.
    (v4(168, 63, 129, 16), 32, "ipv4-cloud-platform", "an address of a cloud's own services"),
];

const fn v6(a: u16, b: u16, c: u16, d: u16) -> Ipv6Addr {
    Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)
}

/// Parts of 2000::/3 that must not be reached, and the names of ranges outside it. The first match
/// names the rule.
pub(super) const IPV6: [Rule<Ipv6Addr>; 21] = [
    (Ipv6Addr::UNSPECIFIED, 128, "ipv6-unspecified", "the unspecified address"),
    (Ipv6Addr::LOCALHOST, 128, "ipv6-loopback", "a loopback address"),
    (v6(0x64, 0xff9b, 0, 0), 96, "ipv6-nat64", "an address translated to IPv4"),
    (v6(0x64, 0xff9b, 0, 0), 32, "ipv6-nat64", "an address translated to IPv4"),
    // IPv4-compatible and IPv4-translated addresses, and others that embed IPv4.
    (v6(0, 0, 0, 0), 8, "ipv6-embedded-ipv4", "an address that embeds IPv4 or is reserved"),
    (v6(0x100, 0, 0, 0), 64, "ipv6-discard", "a discard-only address"),
    (v6(0x100, 0, 0, 1), 64, "ipv6-dummy", "a dummy address"),
    (v6(0x2001, 0, 0, 0), 32, "ipv6-teredo", "a Teredo address"),
    (v6(0x2001, 0x2, 0, 0), 48, "ipv6-benchmarking", "an address for benchmarks"),
    (v6(0x2001, 0, 0, 0), 23, "ipv6-protocol-assignments", "an address assigned to protocols"),
    (v6(0x2001, 0xdb8, 0, 0), 32, "ipv6-documentation", "an address for documentation"),
    (v6(0x2002, 0, 0, 0), 16, "ipv6-6to4", "a 6to4 address"),
    (v6(0x2620, 0x4f, 0x8000, 0), 48, "ipv6-as112", "an address of the AS112 project"),
    (v6(0x3fff, 0, 0, 0), 20, "ipv6-documentation", "an address for documentation"),
    (v6(0x5f00, 0, 0, 0), 16, "ipv6-segment-routing", "a segment routing address"),
    (v6(0xfc00, 0, 0, 0), 7, "ipv6-unique-local", "a private address"),
    (v6(0xfe80, 0, 0, 0), 10, "ipv6-link-local", "a link-local address"),
    (v6(0xfec0, 0, 0, 0), 10, "ipv6-site-local", "a site-local address"),
    (v6(0xff00, 0, 0, 0), 8, "ipv6-multicast", "a multicast address"),
    // Everything outside these two halves and 2000::/3.
    (v6(0x4000, 0, 0, 0), 2, "ipv6-not-global", "an address outside the global unicast space"),
    (v6(0x8000, 0, 0, 0), 1, "ipv6-not-global", "an address outside the global unicast space"),
];

const IPV6_NOT_GLOBAL: Refused =
    Refused::new("ipv6-not-global", "an address outside the global unicast space");
const IPV6_ISATAP: Refused = Refused::new("ipv6-isatap", "an address that embeds IPv4");

/// Classifies an address. An IPv4-mapped IPv6 address is classified as the IPv4 address.
#[must_use]
pub fn classify(address: IpAddr) -> Classification {
    let refused = match address.to_canonical() {
        IpAddr::V4(address) => classify_v4(address),
        IpAddr::V6(address) => classify_v6(address),
    };
    refused.map_or(Classification::Allowed, Classification::Refused)
}

fn classify_v4(address: Ipv4Addr) -> Option<Refused> {
    let inside = |prefix: Ipv4Addr, length: u8| {
        (address.to_bits() ^ prefix.to_bits()).leading_zeros() >= u32::from(length)
    };
    IPV4.iter().find(|rule| inside(rule.0, rule.1)).map(|rule| Refused::new(rule.2, rule.3))
}

fn classify_v6(address: Ipv6Addr) -> Option<Refused> {
    let inside = |prefix: Ipv6Addr, length: u8| {
        (address.to_bits() ^ prefix.to_bits()).leading_zeros() >= u32::from(length)
    };
    if let Some(rule) = IPV6.iter().find(|rule| inside(rule.0, rule.1)) {
        return Some(Refused::new(rule.2, rule.3));
    }
    if !inside(v6(0x2000, 0, 0, 0), 3) {
        return Some(IPV6_NOT_GLOBAL);
    }
    // Within any prefix, an interface id 0:5efe or 200:5efe is a tunnel to the IPv4 address in its
    // last half.
    let segments = address.segments();
    (segments[4] & !0x0200 == 0 && segments[5] == 0x5efe).then_some(IPV6_ISATAP)
}

/// Whether a name is `localhost` or below it. By the standard it means loopback, and is never
/// looked up.
#[must_use]
pub fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
}
