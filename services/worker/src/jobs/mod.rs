//! The jobs that a worker has in hand, from the moment they are read until their reports are
//! settled.

mod held;
mod leases;
mod outcome;

pub(crate) use held::{HeldJob, Key, Payload, Started, inline_payload, trace};
pub(crate) use leases::{Leases, Taken};
pub(crate) use outcome::{Outcome, UnsettledReport, report};
