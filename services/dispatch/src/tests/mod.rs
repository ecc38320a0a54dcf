//! Dispatch over a real store (SQLite) and a real queue (embedded, behind a switch that makes it
//! fail), without a worker or network. The test acts as the worker.

mod bench;
mod flow;
mod handoff;
mod ledger;
mod sweeper;
mod watch;

pub use bench::Bench;
