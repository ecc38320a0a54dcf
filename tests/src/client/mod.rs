//! Clients of the public port.

mod connect;
mod grpc;
mod raw;
mod rest;

pub use connect::{connect_tls, presented, tls};
pub use grpc::{Bearer, Grpc};
pub use raw::{Exchange, exchange};
pub use rest::{Reply, Rest};
