//! The rules about names, by whole labels.

use super::{Refused, is_localhost};

const SYNTAX: Refused = Refused::new("name-syntax", "a malformed host name");
const NUMERIC: Refused = Refused::new("name-numeric", "a host name that could be read as an IPv4 address");
const LOCALHOST: Refused = Refused::new("name-localhost", "a loopback name");
const SINGLE_LABEL: Refused = Refused::new("name-single-label", "a host name without a domain");
const INTERNAL: Refused = Refused::new("name-internal", "a name of an internal network");
const METADATA: Refused = Refused::new("name-metadata", "a name of a cloud's metadata service");
const ONION: Refused = Refused::new("name-onion", "a name outside the DNS");
const INVALID: Refused = Refused::new("name-invalid", "a name that never resolves");
const ARPA: Refused = Refused::new("name-arpa", "a name of the internet's infrastructure");

/// Domains whose names, and those below them, belong to the inside, are outside the DNS, or are
/// answered by no name server (RFC 6761, RFC 9476).
const DOMAINS: [(&str, Refused); 16] = [
    ("local", INTERNAL),
    ("internal", INTERNAL),
    ("svc", INTERNAL),
    ("localdomain", INTERNAL),
    ("lan", INTERNAL),
    ("home", INTERNAL),
    ("corp", INTERNAL),
    ("intranet", INTERNAL),
    ("onion", ONION),
    ("alt", ONION),
    ("invalid", INVALID),
    ("arpa", ARPA),
    ("metadata.goog", METADATA),
    ("metadata.tencentyun.com", METADATA),
    ("metadata.platformequinix.com", METADATA),
    ("metadata.packet.net", METADATA),
];

pub(super) fn check(host: &str, allow_loopback: bool) -> Result<(), Refused> {
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.len() > 253 || !name.split('.').all(is_label) {
        return Err(SYNTAX);
    }
    let name = name.to_ascii_lowercase();
    if name.rsplit('.').next().is_some_and(is_number) {
        return Err(NUMERIC);
    }
    if is_localhost(&name) {
        return if allow_loopback { Ok(()) } else { Err(LOCALHOST) };
    }
    if let Some((_, refused)) = DOMAINS.iter().find(|(domain, _)| is_within(&name, domain)) {
        return Err(*refused);
    }
    if name.contains('.') { Ok(()) } else { Err(SINGLE_LABEL) }
}

/// Letters, digits, hyphens inside, and underscores, which real hosts have although hosts should not.
fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// What some parsers take for the last part of an IPv4 address, in decimal or hexadecimal.
fn is_number(label: &str) -> bool {
    let hexadecimal = label.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    hexadecimal || label.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_within(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}
