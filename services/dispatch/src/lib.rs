//! The role `dispatch`: makes events durable, routes them to deliveries, feeds the queue, settles
//! attempts, and serves queries about them.
//!
//! Every outcome passes through here, so every decision about a delivery is made here. It must
//! never send to an endpoint, and never answer OK before the database has committed.

mod accepting;
mod batcher;
mod chores;
mod dispatch;
mod fair_queue;
mod feeding;
#[doc(hidden)]
pub mod fuzzed;
mod handoff;
mod jobs;
mod measure;
mod options;
mod service;
mod settling;
mod shared;
mod tail;
mod trace;
mod windows;

#[cfg(test)]
mod tests;

pub use dispatch::Dispatch;
pub use options::{Given, Options};
