//! Who is on the other side of a connection.

use super::words::ENDPOINT;

/// Who is on the other side, for texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// An endpoint, to which no certificate is presented. The texts are for its owner.
    Endpoint,
    /// One of our servers: a role, or the gateway that a command calls.
    Server,
    /// A client of one of our servers.
    Client,
}

impl Peer {
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Endpoint => ENDPOINT,
            Self::Server => "the server",
            Self::Client => "the client",
        }
    }
}
