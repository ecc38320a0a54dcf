//! Addresses of the metadata services at which clouds give credentials to their machines.
//!
//! They are in ranges that an installation may allow (its own network, link-local addresses), so
//! they are distinguished from their range: only an entry that is exactly the address opens one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::refused::Refused;

const IPV4_METADATA: Refused =
    Refused::new("ipv4-metadata", "an address of a cloud's metadata service");
const IPV6_METADATA: Refused =
    Refused::new("ipv6-metadata", "an address of a cloud's metadata service");

const IPV4: [Ipv4Addr; 9] = [
    // AWS, Google, Azure, DigitalOcean, Hetzner, Oracle, OpenStack and most others.
    Ipv4Addr::new(169, 254, 169, 254),
    // Google: Kubernetes nodes answer here for the former.
    Ipv4Addr::new(169, 254, 169, 252),
    // AWS: credentials of tasks (ECS) and of pods (EKS).
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    // Tencent Cloud.
    Ipv4Addr::new(169, 254, 0, 23),
    // Scaleway.
    Ipv4Addr::new(169, 254, 42, 42),
    // Alibaba Cloud.
    Ipv4Addr::new(100, 100, 100, 200),
    // Oracle Cloud, before it took the usual one.
    Ipv4Addr::new(192, 0, 0, 192),
    // Azure: the virtual machine's agent.
    Ipv4Addr::new(168, 63, 129, 16),
];

const IPV6: [Ipv6Addr; 8] = [
    // AWS: the instance, and pods (EKS).
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    // Google.
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    // OpenStack, and Akamai.
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
    Ipv6Addr::new(0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1),
    // Oracle Cloud.
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
    // Alibaba Cloud.
    Ipv6Addr::new(0xfd00, 0x100, 0, 0, 0, 0, 0x100, 0x200),
    // Scaleway.
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

/// Refuses a metadata service, including IPv6 addresses that lead to its IPv4 address. The address
/// must be canonical.
pub(super) fn check(address: IpAddr) -> Result<(), Refused> {
    match address {
        IpAddr::V4(address) if IPV4.contains(&address) => Err(IPV4_METADATA),
        IpAddr::V6(address) if IPV6.contains(&address) => Err(IPV6_METADATA),
        IpAddr::V6(address) if embedded(address).is_some_and(|inner| IPV4.contains(&inner)) => {
            Err(IPV6_METADATA)
        }
        _ => Ok(()),
    }
}

/// Returns the IPv4 address to which translators (NAT64), relays (6to4) or old stacks map an IPv6
/// address.
pub(super) fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let of = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match (a, b, c, d, e, f) {
        // The unspecified and the loopback address, which embed no IPv4 address (RFC 4291, 2.5.2
        // and 2.5.3).
        (0, 0, 0, 0, 0, 0) if g == 0 && h <= 1 => None,
        (0x64, 0xff9b, 0, 0, 0, 0) | (0, 0, 0, 0, 0, 0) | (0, 0, 0, 0, 0xffff, 0) => Some(of(g, h)),
        (0x2002, ..) => Some(of(b, c)),
        _ => None,
    }
}

#[cfg(test)]
pub(super) fn all() -> Vec<IpAddr> {
    IPV4.map(IpAddr::from).into_iter().chain(IPV6.map(IpAddr::from)).collect()
}
