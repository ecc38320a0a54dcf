//! Clients and servers between roles.

pub mod channel;
pub mod dial;
pub mod intake;
pub mod keys;
pub mod listen;
pub mod proxy;
pub(crate) mod resend;
pub mod role;
pub mod server;
pub mod settlement;
pub mod streams;
