//! Entries of the lists that allow and deny destinations: a network, an address, a name, or all
//! names below one, with or without ports.

use std::{fmt, net::IpAddr, str::FromStr};

use super::names;
use crate::punycode::to_ascii;

/// Maximum number of entries of a list. Each is compared with every address.
pub const MAX_ENTRIES: usize = 1_000;

/// Maximum length of an entry, in bytes. A name has at most 253.
const MAX_BYTES: usize = 300;

/// An entry, such as `10.20.0.0/16:8080`, `[fd12::1]:443`, `hooks.corp.example` or
/// `*.svc.cluster.local:8000-8999`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub(super) host: Host,
    /// The first and the last port.
    pub(super) ports: Option<(u16, u16)>,
}

/// The hosts of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    /// The first address, and the length of the prefix.
    Network(IpAddr, u8),
    /// Exactly this name, in lower case and punycode.
    Name(String),
    /// Every name below this one, but not the name itself.
    Below(String),
}

/// The error of an entry, which follows "egress.allow[0]: …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedEntry(String);

type Result<T> = std::result::Result<T, MalformedEntry>;

fn malformed<T>(problem: impl Into<String>) -> Result<T> {
    Err(MalformedEntry(problem.into()))
}

impl Entry {
    /// Whether the entry covers the port. An entry without ports covers all.
    pub(super) fn covers_port(&self, port: u16) -> bool {
        self.ports.is_none_or(|(first, last)| (first..=last).contains(&port))
    }

    /// Whether the entry covers an address, which must be canonical.
    pub(super) fn covers_address(&self, address: IpAddr) -> bool {
        match (&self.host, address) {
            (Host::Network(IpAddr::V4(first), length), IpAddr::V4(address)) => {
                (first.to_bits() ^ address.to_bits()).leading_zeros() >= u32::from(*length)
            }
            (Host::Network(IpAddr::V6(first), length), IpAddr::V6(address)) => {
                (first.to_bits() ^ address.to_bits()).leading_zeros() >= u32::from(*length)
            }
            _ => false,
        }
    }

    /// Whether the entry is a single address.
    pub(super) fn is_one_address(&self) -> bool {
        matches!(&self.host, Host::Network(IpAddr::V4(_), 32) | Host::Network(IpAddr::V6(_), 128))
    }

    /// Whether the entry covers a name, which must be canonical.
    pub(super) fn covers_name(&self, name: &str) -> bool {
        match &self.host {
            Host::Network(..) => false,
            Host::Name(exact) => exact == name,
            Host::Below(domain) => name
                .strip_suffix(domain.as_str())
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        }
    }

    /// Whether the entry is exactly one name.
    pub(super) fn is_one_name(&self) -> bool {
        matches!(&self.host, Host::Name(_))
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Network(address, length) => {
                let whole = *length == if address.is_ipv4() { 32 } else { 128 };
                let network =
                    if whole { address.to_string() } else { format!("{address}/{length}") };
                if address.is_ipv6() && self.ports.is_some() {
                    write!(f, "[{network}]")?
                } else {
                    f.write_str(&network)?
                }
            }
            Host::Name(name) => f.write_str(name)?,
            Host::Below(domain) => write!(f, "*.{domain}")?,
        }
        match self.ports {
            None => Ok(()),
            Some((first, last)) if first == last => write!(f, ":{first}"),
            Some((first, last)) => write!(f, ":{first}-{last}"),
        }
    }
}

impl FromStr for Entry {
    type Err = MalformedEntry;

    fn from_str(text: &str) -> Result<Self> {
        if text.is_empty() {
            return malformed("must not be empty");
        }
        if text.len() > MAX_BYTES {
            return malformed(format!("must not be longer than {MAX_BYTES} bytes"));
        }
        let (host, ports) = split_ports(text)?;
        let ports = ports.map(parse_ports).transpose()?;
        Ok(Self { host: parse_host(host)?, ports })
    }
}

/// Splits an entry into the host, without brackets, and the text of the ports.
fn split_ports(text: &str) -> Result<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let Some((inner, after)) = rest.split_once(']') else {
            return malformed("has an address without its closing bracket");
        };
        if !inner.contains(':') {
            return malformed("must have brackets around IPv6 only");
        }
        return match after.strip_prefix(':') {
            Some(ports) => Ok((inner, Some(ports))),
            None if after.is_empty() => Ok((inner, None)),
            None => malformed(
                "has text after its bracket that is no port; a prefix goes inside: [fd12::/16]:443",
            ),
        };
    }
    match text.split_once(':') {
        // More than one colon: IPv6 without a port.
        Some((_, rest)) if rest.contains(':') => Ok((text, None)),
        Some((host, ports)) => Ok((host, Some(ports))),
        None => Ok((text, None)),
    }
}

fn parse_ports(text: &str) -> Result<(u16, u16)> {
    let port = |text: &str| match number(text).and_then(|number| u16::try_from(number).ok()) {
        Some(port) if port > 0 => Ok(port),
        _ => malformed(
            "must have a port from 1 to 65535 after the colon, or two with a hyphen (IPv6 with a \
                port is in brackets)",
        ),
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return malformed(format!(
            "has its ports in the wrong order: did you mean {last}-{first}?"
        ));
    }
    Ok((first, last))
}

/// Parses a number without a sign or leading zeros, which a number parser would accept.
fn number(digits: &str) -> Option<u32> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'));
    digits.parse().ok().filter(|_| plain)
}

fn parse_host(text: &str) -> Result<Host> {
    if let Some((address, length)) = text.split_once('/') {
        return parse_network(address, length);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Host::Network(plain(address)?, if address.is_ipv4() { 32 } else { 128 }));
    }
    if text.contains(':') {
        return malformed("is neither an IPv6 address nor a network of them");
    }
    match text.strip_prefix("*.") {
        Some(domain) => parse_name(domain).map(Host::Below),
        None if text.contains('*') => malformed(
            "may have a * only as its first label: *.example.com is all below example.com",
        ),
        None => parse_name(text).map(Host::Name),
    }
}

/// Refuses IPv4 inside IPv6. It is checked as IPv4, so an entry of that form would never match.
fn plain(address: IpAddr) -> Result<IpAddr> {
    if address.to_canonical() == address {
        Ok(address)
    } else {
        malformed("must have an IPv4 address in its plain form")
    }
}

fn parse_network(address: &str, length: &str) -> Result<Host> {
    let Ok(address) = address.parse::<IpAddr>() else {
        return malformed("has no address before its /: 10.20.0.0/16 and fd12::/16 are networks");
    };
    let bits: u8 = if address.is_ipv4() { 32 } else { 128 };
    let length = number(length).and_then(|length| u8::try_from(length).ok());
    let Some(length) = length.filter(|length| (1..=bits).contains(length)) else {
        return malformed(format!("must have 1 to {bits} bits after its /"));
    };
    let first = match plain(address)? {
        IpAddr::V4(address) => IpAddr::V4((address.to_bits() & u32::MAX << (32 - length)).into()),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & u128::MAX << (128 - length)).into()),
    };
    if first != address {
        return malformed(format!("has bits beyond its prefix: did you mean {first}/{length}?"));
    }
    Ok(Host::Network(first, length))
}

fn parse_name(text: &str) -> Result<String> {
    let ascii = to_ascii(text).or_else(|error| malformed(error.to_string()))?;
    names::canonical(&ascii)
        .or_else(|refused| malformed(format!("is no host that can be reached: {refused}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_is_read_and_shown_plainly() {
        for (given, shown) in [
            ("10.20.0.0/16:8080", "10.20.0.0/16:8080"),
            ("10.9.8.7", "10.9.8.7"),
            ("10.9.8.7/32", "10.9.8.7"),
            ("10.9.8.7:6379", "10.9.8.7:6379"),
            ("fd12::/16", "fd12::/16"),
            ("fd12:0::1", "fd12::1"),
            ("[fd12::/16]:8443", "[fd12::/16]:8443"),
            ("[FD12::1]:80-90", "[fd12::1]:80-90"),
            ("[fd12::1]", "fd12::1"),
            ("Hooks.Corp.Example", "hooks.corp.example"),
            ("hooks.corp.example.:443", "hooks.corp.example:443"),
            ("*.svc.cluster.local:80", "*.svc.cluster.local:80"),
            ("*.local", "*.local"),
            ("receiver:8000-8000", "receiver:8000"),
            ("b\u{fc}cher.example", "xn--bcher-kva.example"),
            ("localhost", "localhost"),
        ] {
            let entry: Entry = given.parse().unwrap_or_else(|error| panic!("{given}: {error}"));
            assert_eq!(entry.to_string(), shown, "{given}");
            assert_eq!(shown.parse::<Entry>().unwrap(), entry, "{given}");
        }
    }

    #[test]
    fn what_is_no_entry_is_refused_with_what_to_do() {
        for (given, part) in [
            ("", "must not be empty"),
            ("10.20.0.1/16", "did you mean 10.20.0.0/16?"),
            ("fd12::1/16", "did you mean fd12::/16?"),
            ("0.0.0.0/0", "1 to 32 bits"),
            ("::/0", "1 to 128 bits"),
            ("10.0.0.0/33", "1 to 32 bits"),
            ("10.0.0.0/+8", "1 to 32 bits"),
            ("10.0.0.0/08", "1 to 32 bits"),
            ("example.com/8", "no address before its /"),
            ("*", "as its first label"),
            ("*.", "malformed host name"),
            ("a.*.example", "as its first label"),
            ("*.*.example", "malformed host name"),
            ("example.com:", "port from 1 to 65535"),
            ("example.com:0", "port from 1 to 65535"),
            ("example.com:080", "port from 1 to 65535"),
            ("example.com:65536", "port from 1 to 65535"),
            ("example.com:90-80", "did you mean 80-90?"),
            ("fd12::1:zz", "neither an IPv6 address"),
            ("[fd12::1", "closing bracket"),
            ("[fd12::]/16", "a prefix goes inside"),
            ("[10.0.0.1]:80", "around IPv6 only"),
            ("::ffff:10.0.0.1", "plain form"),
            ("::ffff:0:0/96", "plain form"),
            ("fe80::1%eth0", "neither an IPv6 address"),
            ("x.onion", "name-onion"),
            ("*.invalid", "name-invalid"),
            ("127.1", "name-numeric"),
            ("a b.example", "name-syntax"),
            ("http://example.com", "port from 1 to 65535"),
        ] {
            let error = given.parse::<Entry>().expect_err(given).to_string();
            assert!(error.contains(part), "{given}: {error}");
        }
        assert!(
            "a".repeat(MAX_BYTES + 1)
                .parse::<Entry>()
                .unwrap_err()
                .to_string()
                .contains("300 bytes")
        );
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_shown_is_what_was_read(
            text in "[\\[\\]0-9a-f.:/*-]{0,24}|\\PC{0,24}",
        ) {
            if let Ok(entry) = text.parse::<Entry>() {
                prop_assert_eq!(entry.to_string().parse::<Entry>(), Ok(entry));
            }
        }
    }
}
