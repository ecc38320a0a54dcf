//! Clients of the public port.

mod grpc;
mod raw;
mod rest;
mod sse;
mod web;

pub use grpc::{Bearer, Grpc};
pub use raw::{Exchange, exchange};
pub use rest::{Reply, Rest};
pub use sse::{Event, EventSource};
pub use web::WebStream;
