//! Clients of the public port.

mod grpc;
mod raw;
mod rest;

pub use grpc::{Bearer, Grpc};
pub use raw::{Exchange, exchange};
pub use rest::{Reply, Rest};
