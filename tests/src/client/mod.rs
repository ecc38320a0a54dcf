//! Clients of the public port.

mod grpc;
mod raw;
mod rest;
mod stream;

pub use grpc::{Bearer, Grpc};
pub use raw::{Exchange, exchange};
pub use rest::{Reply, Rest};
pub use stream::{Connection, Producer, streamed};
