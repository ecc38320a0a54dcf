//! TLS towards endpoints.

mod connector;
mod errors;

pub(crate) use connector::connector;
pub(crate) use errors::{alert_after, handshake};
