//! Clients of the public port.

mod dynamic;
mod grpc;
mod raw;
mod rest;
mod sse;
mod transcode;
mod web;

pub use dynamic::{Dynamic, Outcome, public_methods, scope};
pub use grpc::{Bearer, Grpc};
pub use raw::{Exchange, exchange};
pub use rest::{Reply, Rest};
pub use sse::{Event, EventSource};
pub use transcode::{RestRequest, rest_requests};
pub use web::WebStream;
