//! Dispatch over a real store (SQLite) and a real queue (embedded, behind a switch that makes it
//! fail), without worker or network: the test plays the worker.

mod bench;
mod flow;
mod handoff;
mod ledger;
mod sweeper;
mod watch;

pub use bench::Bench;
