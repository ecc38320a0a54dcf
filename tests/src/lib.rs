//! The harness of tests that cross crates: real PostgreSQL and Redis servers, the real binary in
//! one process or in six, a receiver with configurable answers, and clients for REST and gRPC.
//!
//! It must never link a role, because it tests the binary from outside, as users see it.

pub mod attacker;
pub mod client;
pub mod cluster;
pub mod collector;
pub mod disk;
pub mod leash;
pub mod logs;
pub mod pki;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod receiver;
pub mod servers;
pub mod shapes;
pub mod usage;
pub mod wait;

pub use attacker::{Attacker, Limits};
pub use cluster::{Outrider, Shape};
pub use collector::Collector;
pub use disk::FullDisk;
pub use proxy::Proxy;
pub use raw::{Act, RawReceiver};
pub use receiver::{Answer, Received, Receiver};
pub use wait::wait_until;
