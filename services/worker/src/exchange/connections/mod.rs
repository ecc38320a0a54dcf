//! Connections to endpoints, and the pool of idle ones.

mod connection;
mod origins;
mod pool;
mod probe;

pub(crate) use connection::{Body, Connection};
pub(crate) use origins::{Met, Timeouts};
pub(crate) use pool::{Pool, Reused};
pub(crate) use probe::Shown;
