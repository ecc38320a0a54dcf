//! TLS towards endpoints.

mod connector;
mod errors;

pub(crate) use connector::connector;
#[cfg(test)]
pub(crate) use errors::tls;
pub(crate) use errors::{alert_after, handshake};
