//! How a worker connects to endpoints: through the egress role, in this process or as a proxy.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use outrider_model::text::span;

use crate::tls::socket::Socket;

/// Opens connections to external hosts and ports, if the egress policy permits them.
#[async_trait]
pub trait Dialer: Send + Sync + 'static {
    /// Connects to `host` (a name, or an address without brackets) and `port`. The caller sets the
    /// deadline by dropping the future.
    async fn dial(&self, host: &str, port: u16) -> Result<Socket, DialError>;
}

/// Why there is no connection. The texts are for the owners of endpoints, so they contain no
/// address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The policy refuses the name, one of its addresses, or the port.
    #[error(
        "the {} is not allowed ({rule})",
        if rule.starts_with("port-") { "port" } else { "address" }
    )]
    Refused {
        /// Stable name of the rule.
        rule: String,
    },
    /// The name has no address.
    #[error("the host name does not resolve{0}")]
    NotResolved(NoName),
    /// No permitted address accepted the connection.
    #[error("{0}")]
    ConnectFailed(NoConnection),
    /// The egress itself cannot be reached or is full. The endpoint is not at fault.
    #[error("the egress is unavailable")]
    EgressUnavailable,
}

/// Why a name has no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoName {
    /// The name does not exist.
    Missing,
    /// The name exists but has no address.
    NoAddress,
    /// The name has more addresses than are checked.
    TooMany,
    /// The name servers of its domain fail.
    ServerFails,
    /// A name server refuses the query.
    ServerRefuses,
    /// No name server answered within this time.
    Late(Duration),
    /// No name server answered after all retries.
    Silent,
    /// Another reason.
    Other,
}

/// Why no address accepted a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoConnection {
    /// Nothing listens on the port.
    Refused,
    /// Nothing answered within this time.
    Late(Duration),
    /// There is no route to the host.
    Unreachable,
    /// The connection was reset while it was established.
    Reset,
    /// The host has no address of the family that the egress connects from.
    OtherFamily,
    /// Another reason.
    Other,
}

impl fmt::Display for NoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str(": there is no such name (NXDOMAIN)"),
            Self::NoAddress => f.write_str(": the name has no address (no A and no AAAA record)"),
            Self::TooMany => f.write_str(": the name has too many addresses"),
            Self::ServerFails => f.write_str(": the name servers of its domain fail (SERVFAIL)"),
            Self::ServerRefuses => f.write_str(": a name server refuses to tell (REFUSED)"),
            Self::Late(limit) => write!(f, ": no name server answered within {}", span(*limit)),
            Self::Silent => f.write_str(": no name server answered"),
            Self::Other => Ok(()),
        }
    }
}

impl fmt::Display for NoConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => {
                f.write_str("the connection was refused: nothing listens on that port")
            }
            Self::Late(limit) => {
                write!(f, "no connection within {}: nothing answered", span(*limit))
            }
            Self::Unreachable => f.write_str("the connection failed: the host is not reachable"),
            Self::Reset => f.write_str("the connection was reset while it was made"),
            Self::OtherFamily => f.write_str(
                "the connection failed: the host has no address of the family that is connected \
                 from",
            ),
            Self::Other => f.write_str("the connection failed"),
        }
    }
}

/// Stable words that travel from the egress to the worker, followed by a limit in milliseconds if
/// there is one.
const NAMES: [(&str, NoName); 6] = [
    ("no-such-name", NoName::Missing),
    ("no-address", NoName::NoAddress),
    ("too-many-addresses", NoName::TooMany),
    ("server-fails", NoName::ServerFails),
    ("server-refuses", NoName::ServerRefuses),
    ("servers-silent", NoName::Silent),
];
const CONNECTIONS: [(&str, NoConnection); 4] = [
    ("refused", NoConnection::Refused),
    ("unreachable", NoConnection::Unreachable),
    ("reset", NoConnection::Reset),
    ("other-family", NoConnection::OtherFamily),
];
const LATE: &str = "late";
const OTHER: &str = "other";

impl NoName {
    pub(crate) fn of_header(text: Option<&str>) -> Self {
        read(text, &NAMES, Self::Late, Self::Other)
    }
}

impl NoConnection {
    pub(crate) fn of_header(text: Option<&str>) -> Self {
        read(text, &CONNECTIONS, Self::Late, Self::Other)
    }
}

impl DialError {
    /// Returns the cause for the header of a proxy's refusal.
    #[must_use]
    pub fn cause(&self) -> Option<String> {
        match self {
            Self::NotResolved(NoName::Late(limit))
            | Self::ConnectFailed(NoConnection::Late(limit)) => {
                Some(format!("{LATE} {}", limit.as_millis()))
            }
            Self::NotResolved(cause) => Some(word(*cause, &NAMES)),
            Self::ConnectFailed(cause) => Some(word(*cause, &CONNECTIONS)),
            Self::Refused { .. } | Self::EgressUnavailable => None,
        }
    }
}

fn word<T: PartialEq>(cause: T, words: &[(&str, T)]) -> String {
    words.iter().find(|(_, known)| *known == cause).map_or(OTHER, |(word, _)| word).to_owned()
}

/// Reads a cause. An egress of the previous version sends none, and one of the next version may
/// send a word that this version does not know.
fn read<T: Copy>(
    text: Option<&str>,
    words: &[(&str, T)],
    late: impl Fn(Duration) -> T,
    other: T,
) -> T {
    let text = text.unwrap_or(OTHER);
    if let Some(millis) = text.strip_prefix(LATE).and_then(|rest| rest.trim().parse::<u32>().ok()) {
        return late(Duration::from_millis(millis.into()));
    }
    words.iter().find(|(word, _)| *word == text).map_or(other, |(_, cause)| *cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_survives_the_wire_and_has_its_own_text() {
        let late = Duration::from_secs(10);
        let names =
            NAMES.iter().map(|(_, cause)| *cause).chain([NoName::Late(late), NoName::Other]);
        let connections = CONNECTIONS
            .iter()
            .map(|(_, cause)| *cause)
            .chain([NoConnection::Late(late), NoConnection::Other]);
        let mut texts = std::collections::HashSet::new();
        for cause in names {
            let error = DialError::NotResolved(cause);
            assert_eq!(NoName::of_header(error.cause().as_deref()), cause);
            assert!(texts.insert(error.to_string()), "{error}");
        }
        for cause in connections {
            let error = DialError::ConnectFailed(cause);
            assert_eq!(NoConnection::of_header(error.cause().as_deref()), cause);
            assert!(texts.insert(error.to_string()), "{error}");
        }
    }

    #[test]
    fn unknown_words_mean_another_cause() {
        for text in [
            None,
            Some(""),
            Some("late"),
            Some("late x"),
            Some("late 99999999999999999999"),
            Some("<b>"),
        ] {
            assert_eq!(NoName::of_header(text), NoName::Other, "{text:?}");
            assert_eq!(NoConnection::of_header(text), NoConnection::Other, "{text:?}");
        }
    }
}
