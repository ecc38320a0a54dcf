//! The lookup of a name, and its errors.

use std::net::IpAddr;

use async_trait::async_trait;
use hickory_resolver::{
    net::{DnsError, NetError},
    proto::{ProtoError, op::ResponseCode, rr::Name},
};
use outrider_rpc::{NoName, cause};

/// Looks up names. It is a trait so that tests can return any answer.
#[async_trait]
pub trait Resolve: Send + Sync + 'static {
    /// Returns all addresses of an absolute name. Search domains apply only to a name of one label,
    /// which occurs only if the operator's lists allow it by name.
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, NoAddress>;
}

/// The reason why a name has no address. The texts are for logs only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAddress {
    /// The name has no address, or no server returned one.
    #[error("the host name does not resolve{0}")]
    Unknown(NoName),
    /// No name server could be asked. This is not a fault of the name.
    #[error("no name server could be asked: {0}")]
    Unable(String),
}

impl From<NetError> for NoAddress {
    /// A server that is late or returns an error may belong to the owner of the name, who must not
    /// profit from that: `Unable` is retried without counting as an attempt. So it is used only for
    /// faults between us and our own name servers.
    fn from(error: NetError) -> Self {
        match error {
            // The resolver reports most socket errors, such as too many open files, as
            // `NoConnections`.
            NetError::Io(error) => Self::Unable(cause::of_io(&error)),
            NetError::NoConnections => Self::Unable("no connection to one".to_owned()),
            NetError::Busy => Self::Unable("too many questions are under way".to_owned()),
            NetError::Timeout => Self::Unknown(NoName::Silent),
            NetError::Dns(error) => Self::Unknown(of_answer(&error)),
            _ => Self::Unknown(NoName::Other),
        }
    }
}

/// Converts the answer of the servers.
fn of_answer(error: &DnsError) -> NoName {
    let code = match error {
        DnsError::NoRecordsFound(none) => none.response_code,
        DnsError::ResponseCode(code) => *code,
        _ => return NoName::Other,
    };
    match code {
        ResponseCode::NXDomain => NoName::Missing,
        ResponseCode::NoError => NoName::NoAddress,
        ResponseCode::ServFail => NoName::ServerFails,
        ResponseCode::Refused => NoName::ServerRefuses,
        _ => NoName::Other,
    }
}

/// Describes an error of the library about the system's files or the resolver itself. Its texts
/// about answers are Debug output.
pub(super) fn of_setup(error: &NetError) -> String {
    match error {
        NetError::Io(error) => cause::of_io(error),
        NetError::Dns(_) => "a name server answers with an error".to_owned(),
        other => other.to_string(),
    }
}

/// The bounds of the cache.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Maximum number of cached names.
    pub(super) names: u64,
    /// Maximum number of addresses of a name. A name with more is not resolved.
    pub(super) addresses: usize,
}

/// Converts exactly this name, from the root: no search domains, and no other reading of its
/// characters. (The library's usual parser refuses underscores.)
pub(super) fn absolute(name: &str) -> Result<Name, ProtoError> {
    Name::from_ascii(format!("{}.", name.strip_suffix('.').unwrap_or(name)))
}
