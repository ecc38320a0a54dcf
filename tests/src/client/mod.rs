//! Clients of the public port.

mod connect;
mod dynamic;
mod grpc;
mod raw;
mod rest;
mod sse;
mod stream;
mod transcode;
mod web;

pub use connect::{connect_tls, presented, tls};
pub use dynamic::{Dynamic, Outcome, public_methods, scope};
pub use grpc::{Bearer, Grpc};
pub use raw::{Exchange, exchange};
pub use rest::{Reply, Rest};
pub use sse::{Event, EventSource};
pub use stream::{Connection, Producer, streamed};
pub use transcode::{RestRequest, rest_requests};
pub use web::WebStream;
