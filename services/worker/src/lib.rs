//! The worker: reads jobs from the queue, signs them at the moment of sending, sends them through
//! the egress and reports to dispatch how it went.
//!
//! It must never open a connection to the outside by itself (only by [`outrider_rpc::Dialer`]),
//! never decide whether or when an attempt is repeated, and never write to the database.
//!
//! A job's way: `reader` takes it from the queue when there is a place for it and remembers it in
//! `leases`; `intake` checks those that may be of the past; in `turns` it waits for its fair share
//! of slots and payload bytes, which `scheduler` gives out; `sender` looks its endpoint up, and has
//! `client` make the one exchange that `request` describes, over a connection that `wire` bounds
//! and whose answers `heads` reads before the HTTP library; `reporter` settles, and only then is
//! the job forgotten.

mod backoff;
mod bounds;
mod exchange;
mod fault;
#[doc(hidden)]
pub mod fuzzed;
mod gauges;
mod jobs;
mod lookup;
mod measure;
mod options;
mod scheduler;
mod shared;
mod steps;
mod trust;
mod worker;

#[cfg(test)]
mod tests;

pub use lookup::{Lookup, StoreLookup};
pub use options::{Given, Options};
pub use worker::Worker;
