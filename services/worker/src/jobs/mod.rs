//! The jobs that a worker has in hand: from the moment they are read until their reports are
//! settled.

mod held;
mod leases;
mod outcome;

pub(crate) use held::{
    HeldJob, Ids, Key, Payload, Started, inline_payload, queued_at, trace, unusable,
};
pub(crate) use leases::{Leases, Taken};
pub(crate) use outcome::{Outcome, Report, report};
