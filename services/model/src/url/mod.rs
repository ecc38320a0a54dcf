//! URLs of webhooks. A URL is parsed once, strictly, and every later layer uses the parsed form.

use std::fmt;

use ::url::{Host as ParsedHost, Url};

use crate::{
    address::{Judged, Policy, Refused},
    limits,
    punycode::{self, to_ascii},
};

/// An absolute http or https URL in canonical form, whose host and port the policy permits. The
/// addresses of a name are checked when it is dialed.
///
/// Canonical form: scheme and host in lower case, names in punycode and without the root dot, no
/// default port, a path. At most `limits::URL_BYTES`. Debug output ends with the host, because
/// paths and queries of webhooks are often secret.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct WebhookUrl {
    text: String,
    host: String,
    port: u16,
    authority_at: usize,
    path_at: usize,
}

/// The error of a URL, which follows "url: …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MalformedUrl {
    /// The text is not an acceptable URL.
    #[error("{0}")]
    Malformed(&'static str),
    /// The policy refuses the host.
    #[error("the host is refused: {0}")]
    Refused(#[from] Refused),
    /// The policy refuses the port.
    #[error("port {port} is refused: {refused}")]
    Port {
        /// The port.
        port: u16,
        /// The reason.
        refused: Refused,
    },
}

impl MalformedUrl {
    /// Returns the rule by which the policy refuses the host or the port. `None` if the URL is
    /// malformed.
    #[must_use]
    pub fn rule(&self) -> Option<&'static str> {
        match self {
            Self::Malformed(_) => None,
            Self::Refused(refused) | Self::Port { refused, .. } => Some(refused.rule),
        }
    }
}

type Result<T> = std::result::Result<T, MalformedUrl>;

fn require(good: bool, message: &'static str) -> Result<()> {
    if good { Ok(()) } else { Err(MalformedUrl::Malformed(message)) }
}

impl WebhookUrl {
    /// Parses a URL, and checks its host and port against the policy.
    pub fn parse(text: &str, policy: &Policy) -> Result<Self> {
        require(!text.is_empty(), "must not be empty")?;
        require(text.len() <= limits::URL_BYTES, TOO_LONG)?;
        require(
            !text.chars().any(is_hidden),
            "must not contain spaces, control or invisible characters",
        )?;
        require(!text.contains('\\'), "must not contain a backslash")?;
        let parts = Parts::split(text)?;
        let (host, shown) = host(parts.host, parts.port(), policy)?;
        let url = Self::assemble(&parts, host, &shown);
        require(url.text.len() <= limits::URL_BYTES, TOO_LONG)?;
        url.compare(text)?;
        Ok(url)
    }

    fn assemble(parts: &Parts<'_>, host: String, shown: &str) -> Self {
        let (scheme, default_port) = if parts.https { ("https", 443) } else { ("http", 80) };
        let port = parts.port();
        let mut text = format!("{scheme}://{shown}");
        if port != default_port {
            text.push_str(&format!(":{port}"));
        }
        let path_at = text.len();
        text.push_str(if parts.path.is_empty() { "/" } else { parts.path });
        if let Some(query) = parts.query {
            text.push('?');
            // The only character on which the two URL standards differ. If it is encoded, they
            // agree.
            text.push_str(&query.replace('\'', "%27"));
        }
        Self { text, host, port, authority_at: scheme.len() + "://".len(), path_at }
    }

    /// Checks that the other common interpretation of URLs, by WHATWG, leads to the same request
    /// for the given and the stored URL.
    fn compare(&self, given: &str) -> Result<()> {
        const DIFFER: &str =
            "is read differently by different programs; write it in its plain form";
        for text in [given, &self.text] {
            let other = Url::parse(text).map_err(|_| MalformedUrl::Malformed(DIFFER))?;
            let host = match other.host() {
                Some(ParsedHost::Domain(name)) => {
                    name.strip_suffix('.').unwrap_or(name) == self.host
                }
                Some(ParsedHost::Ipv4(address)) => self.host == address.to_string(),
                Some(ParsedHost::Ipv6(address)) => self.host == address.to_string(),
                None => false,
            };
            let agreed = host
                && other.scheme() == self.scheme()
                && other.port_or_known_default() == Some(self.port)
                && other.username().is_empty()
                && other.password().is_none()
                && other.fragment().is_none();
            require(agreed, DIFFER)?;
            require(
                other[::url::Position::BeforePath..] == *self.path_and_query(),
                "must not contain \".\" or \"..\" path segments",
            )?;
        }
        Ok(())
    }

    /// Returns the whole URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns `http` or `https`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        if self.is_https() { "https" } else { "http" }
    }

    /// Whether the scheme is https.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.text.starts_with("https:")
    }

    /// Returns the host for a dialer: a name, or an address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port. Default: 80 or 443.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the value of the Host header: the host, in brackets if it is an IPv6 address, and
    /// the port unless it is the default.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.text[self.authority_at..self.path_at]
    }

    /// Returns the request target.
    #[must_use]
    pub fn path_and_query(&self) -> &str {
        &self.text[self.path_at..]
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookUrl({}…)", &self.text[..self.path_at])
    }
}

const TOO_LONG: &str = "must not be longer than 2048 bytes";

/// Whether a character is space, control, separator or invisible (formatting, tags, variation
/// selectors, private use).
fn is_hidden(character: char) -> bool {
    character.is_control()
        || character.is_whitespace()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
            | '\u{8e2}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff9}'..='\u{fffd}' | '\u{110bd}' | '\u{110cd}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e000}'..='\u{f8ff}'
            | '\u{e0000}'..='\u{10ffff}')
}

/// The parts of a URL as given.
struct Parts<'a> {
    https: bool,
    /// With brackets if given.
    host: &'a str,
    port: Option<u16>,
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn port(&self) -> u16 {
        self.port.unwrap_or(if self.https { 443 } else { 80 })
    }

    fn split(text: &'a str) -> Result<Self> {
        const SCHEME: &str = "must begin with https:// or http://";
        let (scheme, rest) = text.split_once("://").ok_or(MalformedUrl::Malformed(SCHEME))?;
        let https = scheme.eq_ignore_ascii_case("https");
        require(https || scheme.eq_ignore_ascii_case("http"), SCHEME)?;
        require(!rest.contains('#'), "must not contain a fragment (#)")?;
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        require(!authority.contains('@'), "must not contain a user name or password")?;
        let (host, port) = split_port(authority)?;
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        require(is_encoded(path, b""), "has characters in its path that must be percent-encoded")?;
        require(
            is_encoded(query.unwrap_or_default(), b"?[]"),
            "has characters in its query that must be percent-encoded",
        )?;
        Ok(Self { https, host, port, path, query })
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>)> {
    let after_bracket = if authority.starts_with('[') {
        authority
            .find(']')
            .ok_or(MalformedUrl::Malformed("has an address without its closing bracket"))?
            + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, port) = authority.split_at(after_bracket);
    require(!host.is_empty(), "must name a host")?;
    if port.is_empty() {
        return Ok((host, None));
    }
    const PORT: &str = "must have a port between 1 and 65535, or none";
    let digits = port
        .strip_prefix(':')
        .ok_or(MalformedUrl::Malformed("has text between its host and its path"))?;
    // Without a sign or leading zeros, which a number parser would accept.
    require(digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0'), PORT)?;
    digits.parse().map(|port| (host, Some(port))).map_err(|_| MalformedUrl::Malformed(PORT))
}

/// Whether a text consists of characters that are permitted in a path, those in `besides`, and
/// well-formed percent escapes.
fn is_encoded(text: &str, besides: &[u8]) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().enumerate().all(|(at, byte)| match byte {
        b'%' => {
            bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        }
        _ => {
            byte.is_ascii_alphanumeric()
                || b"-._~!$&'()*+,;=:@/".contains(byte)
                || besides.contains(byte)
        }
    })
}

/// Returns the host for a dialer and the host for a URL, which differ by the brackets of IPv6.
/// Checks host and port against the policy.
fn host(given: &str, port: u16, policy: &Policy) -> Result<(String, String)> {
    let judge = |host: &str| {
        policy.judge(host, port).map_err(|refused| {
            if refused.is_of_port() {
                MalformedUrl::Port { port, refused }
            } else {
                MalformedUrl::Refused(refused)
            }
        })
    };
    require(!given.contains('%'), "must not contain % in its host")?;
    if let Some(inner) = given.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: std::net::Ipv6Addr = inner
            .parse()
            .map_err(|_| MalformedUrl::Malformed("has no IPv6 address between its brackets"))?;
        judge(&address.to_string())?;
        require(address.to_ipv4_mapped().is_none(), "must have an IPv4 address in its plain form")?;
        return Ok((address.to_string(), format!("[{address}]")));
    }
    let name = to_ascii(given).map_err(|_| MalformedUrl::Malformed(punycode::INVALID))?;
    let name = match judge(&name)? {
        Judged::Address(address, _) => address.to_string(),
        Judged::Name(name) => name.as_str().to_owned(),
    };
    Ok((name.clone(), name))
}

#[cfg(test)]
mod tests;
