//! What a look-up of a name is, and how it fails.

use std::net::IpAddr;

use async_trait::async_trait;
use hickory_resolver::{
    net::{DnsError, NetError},
    proto::{ProtoError, op::ResponseCode, rr::Name},
};
use outrider_rpc::{NoName, cause};

/// Looks names up. A trait so that tests can give any answer.
#[async_trait]
pub trait Resolve: Send + Sync + 'static {
    /// All addresses of an absolute name: no search list applies, but to a name of one label, which
    /// comes only where the installation allows it by name.
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, NoAddress>;
}

/// Why a name has no address. The texts are for logs only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAddress {
    /// There is none, or no server told.
    #[error("the host name does not resolve{0}")]
    Unknown(NoName),
    /// Nobody could be asked: no fault of the name's.
    #[error("no name server could be asked: {0}")]
    Unable(String),
}

impl From<NetError> for NoAddress {
    /// Servers that are late or answer with an error may be those of the name's owner, whom that
    /// must not excuse: `Unable` is tried again without being counted. So it is only what happens
    /// between us and our own name servers.
    fn from(error: NetError) -> Self {
        match error {
            // The resolver makes `NoConnections` of most errors of sockets, too many open files
            // among them.
            NetError::Io(error) => Self::Unable(cause::of_io(&error)),
            NetError::NoConnections => Self::Unable("no connection to one".to_owned()),
            NetError::Busy => Self::Unable("too many questions are under way".to_owned()),
            NetError::Timeout => Self::Unknown(NoName::Silent),
            NetError::Dns(error) => Self::Unknown(of_answer(&error)),
            _ => Self::Unknown(NoName::Other),
        }
    }
}

/// What the servers' answer means.
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

/// An error of the library about the system's files or the resolver itself. What it says of answers
/// is Debug output.
pub(super) fn of_setup(error: &NetError) -> String {
    match error {
        NetError::Io(error) => cause::of_io(error),
        NetError::Dns(_) => "a name server answers with an error".to_owned(),
        other => other.to_string(),
    }
}

/// What is kept of answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Names that are remembered.
    pub(super) names: u64,
    /// Addresses of one name; a name with more is not resolved.
    pub(super) addresses: usize,
}

/// Exactly this name, from the root: no search list, and no other reading of its characters. (Names
/// made from text the usual way refuse underscores, and none of them would be asked for.)
pub(super) fn absolute(name: &str) -> Result<Name, ProtoError> {
    Name::from_ascii(format!("{}.", name.strip_suffix('.').unwrap_or(name)))
}
