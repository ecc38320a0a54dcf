//! TLS of our own listeners and of the channels between roles: one place reads certificates, and
//! reads them again when they change.
//!
//! The worker handles the web's certificate authorities and the certificates of endpoints.

mod accept;
mod connect;
mod explain;
mod files;
mod protocol;
pub(crate) mod socket;

pub use accept::Acceptor;
pub use connect::{NotAnAddress, connect, host_and_port};
pub use explain::{Peer, explain};
pub use files::{Tls, TlsError, TlsFiles, read_certificates};
pub use protocol::Protocol;
