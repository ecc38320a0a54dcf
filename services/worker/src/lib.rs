//! The worker reads jobs from the queue, signs them at the moment of sending, sends them through
//! the egress, and reports the results to dispatch.
//!
//! It must never open a connection to the outside except through [`outrider_rpc::Dialer`], never
//! decide whether or when an attempt is repeated, and never write to the database.
//!
//! The path of a job: `steps/reader` takes it from the queue when there is a place for it, and
//! `jobs/leases` tracks it. `steps/intake` checks jobs that may be out of date. In `steps/turns`,
//! it waits for its fair share of slots and payload bytes, which `scheduler` divides.
//! `steps/sender` looks up its endpoint, and makes the exchange with `exchange`. `steps/reporter`
//! settles the report, and only then is the job forgotten.

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
