//! Tests the policy against the special-purpose registries of IANA (RFC 6890, RFC 8190), block by
//! block.

use super::{Classification, classify};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The block, its length, and the document that defines it.
type Block<A> = (A, u8, &'static str);

const fn v4(a: u8, b: u8, c: u8, d: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, d)
}

const fn v6(a: u16, b: u16, c: u16, d: u16) -> Ipv6Addr {
    Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)
}

/// The IPv4 Special-Purpose Address Registry.
const IPV4: [Block<Ipv4Addr>; 27] = [
    (v4(0, 0, 0, 0), 8, "RFC 791"),
    (v4(0, 0, 0, 0), 32, "RFC 1122"),
    (v4(10, 0, 0, 0), 8, "RFC 1918"),
    (v4(100, 64, 0, 0), 10, "RFC 6598"),
    (v4(127, 0, 0, 0), 8, "RFC 1122"),
    (v4(169, 254, 0, 0), 16, "RFC 3927"),
    (v4(172, 16, 0, 0), 12, "RFC 1918"),
    (v4(192, 0, 0, 0), 24, "RFC 6890"),
    (v4(192, 0, 0, 0), 29, "RFC 7335"),
    (v4(192, 0, 0, 8), 32, "RFC 7600"),
    // Globally reachable, but anycast addresses of protocols, which receive no webhooks.
    (v4(192, 0, 0, 9), 32, "RFC 7723"),
    (v4(192, 0, 0, 10), 32, "RFC 8155"),
    (v4(192, 0, 0, 170), 32, "RFC 8880"),
    (v4(192, 0, 0, 171), 32, "RFC 8880"),
    (v4(192, 0, 2, 0), 24, "RFC 5737"),
    (v4(192, 31, 196, 0), 24, "RFC 7535"),
    (v4(192, 52, 193, 0), 24, "RFC 7450"),
    (v4(192, 88, 99, 0), 24, "RFC 7526"),
    (v4(192, 88, 99, 2), 32, "RFC 6751"),
    (v4(192, 168, 0, 0), 16, "RFC 1918"),
    (v4(192, 175, 48, 0), 24, "RFC 7534"),
    (v4(198, 18, 0, 0), 15, "RFC 2544"),
    (v4(198, 51, 100, 0), 24, "RFC 5737"),
    (v4(203, 0, 113, 0), 24, "RFC 5737"),
    (v4(240, 0, 0, 0), 4, "RFC 1112"),
    (v4(255, 255, 255, 255), 32, "RFC 8190"),
    // Not in this registry, but in that of multicast.
    (v4(224, 0, 0, 0), 4, "RFC 5771"),
];

/// The IPv6 Special-Purpose Address Registry, without IPv4-mapped addresses, which are classified
/// as IPv4.
const IPV6: [Block<Ipv6Addr>; 26] = [
    (Ipv6Addr::LOCALHOST, 128, "RFC 4291"),
    (Ipv6Addr::UNSPECIFIED, 128, "RFC 4291"),
    (v6(0x64, 0xff9b, 0, 0), 96, "RFC 6052"),
    (v6(0x64, 0xff9b, 1, 0), 48, "RFC 8215"),
    (v6(0x100, 0, 0, 0), 64, "RFC 6666"),
    (v6(0x100, 0, 0, 1), 64, "RFC 9780"),
    (v6(0x2001, 0, 0, 0), 23, "RFC 2928"),
    (v6(0x2001, 0, 0, 0), 32, "RFC 4380"),
    (Ipv6Addr::new(0x2001, 1, 0, 0, 0, 0, 0, 1), 128, "RFC 7723"),
    (Ipv6Addr::new(0x2001, 1, 0, 0, 0, 0, 0, 2), 128, "RFC 8155"),
    (Ipv6Addr::new(0x2001, 1, 0, 0, 0, 0, 0, 3), 128, "RFC 9665"),
    (v6(0x2001, 2, 0, 0), 48, "RFC 5180"),
    (v6(0x2001, 3, 0, 0), 32, "RFC 7450"),
    (v6(0x2001, 4, 0x112, 0), 48, "RFC 7535"),
    (v6(0x2001, 0x10, 0, 0), 28, "RFC 4843"),
    (v6(0x2001, 0x20, 0, 0), 28, "RFC 7343"),
    (v6(0x2001, 0x30, 0, 0), 28, "RFC 9374"),
    (v6(0x2001, 0xdb8, 0, 0), 32, "RFC 3849"),
    (v6(0x2002, 0, 0, 0), 16, "RFC 3056"),
    (v6(0x2620, 0x4f, 0x8000, 0), 48, "RFC 7534"),
    (v6(0x3fff, 0, 0, 0), 20, "RFC 9637"),
    (v6(0x5f00, 0, 0, 0), 16, "RFC 9602"),
    (v6(0xfc00, 0, 0, 0), 7, "RFC 4193"),
    (v6(0xfe80, 0, 0, 0), 10, "RFC 4291"),
    // Not in this registry, but in those of the address space and of multicast.
    (v6(0xfec0, 0, 0, 0), 10, "RFC 3879"),
    (v6(0xff00, 0, 0, 0), 8, "RFC 4291"),
];

/// Returns the first, the last, and a middle address of a block.
fn samples(first: u128, length: u8, bits: u8) -> [u128; 3] {
    let rest = if length == bits { 0 } else { u128::MAX >> (128 - u32::from(bits - length)) };
    [first, first | rest, first | (rest / 3)]
}

#[test]
fn no_block_of_the_registries_is_allowed() {
    let refused = |address: IpAddr, document: &str| {
        assert!(matches!(classify(address), Classification::Refused(_)), "{address} of {document}");
    };
    for (first, length, document) in IPV4 {
        for bits in samples(first.to_bits().into(), length, 32) {
            let address = Ipv4Addr::from_bits(u32::try_from(bits).unwrap());
            refused(address.into(), document);
            refused(address.to_ipv6_mapped().into(), document);
        }
    }
    for (first, length, document) in IPV6 {
        for bits in samples(first.to_bits(), length, 128) {
            refused(Ipv6Addr::from_bits(bits).into(), document);
        }
    }
}

/// The policy must not refuse public addresses that no registry names. All refused addresses of
/// IPv4 and 2000::/3 are in the tables above, except one address that a cloud reserves, and
/// addresses that embed IPv4 (ISATAP).
#[test]
fn nothing_else_is_refused() {
    let within = |address: u128, first: u128, length: u8, bits: u8| {
        (address ^ first) >> (bits - length).min(127) == 0
    };
    let listed_v4 = |address: u32| {
        IPV4.iter()
            .any(|(first, length, _)| within(address.into(), first.to_bits().into(), *length, 32))
    };
    let cloud = v4(168, 63, 129, 16).to_bits();
    // One /24 of 31, at an address that is no edge.
    for block in (0..1_u32 << 24).step_by(31) {
        let address = block << 8 | 7;
        let refused = classify(Ipv4Addr::from_bits(address).into()) != Classification::Allowed;
        assert_eq!(
            refused,
            listed_v4(address) || address == cloud,
            "{}",
            Ipv4Addr::from_bits(address)
        );
    }
    let listed_v6 = |address: u128| {
        IPV6.iter().any(|(first, length, _)| within(address, first.to_bits(), *length, 128))
    };
    // One /32 of 31 in 2000::/8, where nearly all of the special ones are, and one /20 of 31 in the
    // rest.
    let places = (0..1_u128 << 24).map(|block| 0x20 << 120 | block << 96);
    let places =
        places.chain((0..1_u128 << 17).map(|block| 0b001 << 125 | block << 108)).step_by(31);
    for place in places {
        let address = place | 0x7777;
        let refused = classify(Ipv6Addr::from_bits(address).into()) != Classification::Allowed;
        assert_eq!(refused, listed_v6(address), "{}", Ipv6Addr::from_bits(address));
    }
}
