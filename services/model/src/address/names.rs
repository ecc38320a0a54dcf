//! The rules for names, by whole labels.

use super::{classify::is_localhost, refused::Refused};

const SYNTAX: Refused = Refused::new("name-syntax", "a malformed host name");
const NUMERIC: Refused =
    Refused::new("name-numeric", "a host name that could be read as an IPv4 address");
const LOCALHOST: Refused = Refused::new("name-localhost", "a loopback name");
const SINGLE_LABEL: Refused = Refused::new("name-single-label", "a host name without a domain");
const INTERNAL: Refused = Refused::new("name-internal", "a name of an internal network");
const METADATA: Refused = Refused::new("name-metadata", "a name of a cloud's metadata service");
const ONION: Refused = Refused::new("name-onion", "a name outside the DNS");
const INVALID: Refused = Refused::new("name-invalid", "a name that never resolves");
const ARPA: Refused = Refused::new("name-arpa", "a name of the internet's infrastructure");

/// Domains that, with all names below them, are internal, outside the DNS, or answered by no name
/// server (RFC 6761, RFC 9476).
const DOMAINS: [(&str, Refused); 12] = [
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
];

/// Names of the metadata services of clouds, which give out credentials.
const METADATA_DOMAINS: [&str; 6] = [
    "metadata.goog",
    "metadata.google.internal",
    "instance-data.ec2.internal",
    "metadata.tencentyun.com",
    "metadata.platformequinix.com",
    "metadata.packet.net",
];

/// Returns the name in lower case and without the root dot. Refuses names that no name server can
/// answer. No entry of an installation changes that.
pub(super) fn canonical(host: &str) -> Result<String, Refused> {
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.len() > 253 || !name.split('.').all(is_label) {
        return Err(SYNTAX);
    }
    let name = name.to_ascii_lowercase();
    if name.rsplit('.').next().is_some_and(is_number) {
        return Err(NUMERIC);
    }
    match within_domain(&name) {
        Some(refused) if refused == ONION || refused == INVALID => Err(refused),
        _ => Ok(name),
    }
}

/// Refuses the names of metadata services, and names below them. The name must be canonical.
pub(super) fn check_metadata(name: &str) -> Result<(), Refused> {
    if METADATA_DOMAINS.iter().any(|domain| is_within(name, domain)) {
        Err(METADATA)
    } else {
        Ok(())
    }
}

/// Refuses internal names. The name must be canonical.
pub(super) fn check(name: &str, allow_loopback: bool) -> Result<(), Refused> {
    if is_localhost(name) {
        return if allow_loopback { Ok(()) } else { Err(LOCALHOST) };
    }
    check_metadata(name)?;
    if let Some(refused) = within_domain(name) {
        return Err(refused);
    }
    if name.contains('.') { Ok(()) } else { Err(SINGLE_LABEL) }
}

fn within_domain(name: &str) -> Option<Refused> {
    DOMAINS.iter().find(|(domain, _)| is_within(name, domain)).map(|(_, refused)| *refused)
}

/// Whether a label consists of letters, digits, hyphens (inside) and underscores. Real hosts have
/// underscores, although the standard excludes them.
fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Whether some parsers would take a label for the last part of an IPv4 address, in decimal or
/// hexadecimal.
fn is_number(label: &str) -> bool {
    let hexadecimal = label
        .strip_prefix("0x")
        .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    hexadecimal || label.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a name is a domain, or below it.
fn is_within(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}
