//! Bounded resources that callers share, such as streams or bytes of a buffer, and their division.
//!
//! A *project* may hold half of what others leave of the total. An *API key* may hold half of what
//! the other keys of its project leave of that. However much a caller takes, half of the rest is
//! left for the next one. An organization gains nothing by having many projects: it may hold three
//! quarters of what other organizations leave, and each of its projects may hold two thirds of what
//! the others leave of that. For a single project, this is the same half. Every limit is at least a
//! minimum, as long as that much is left. See docs/decisions/0061-shares.md.
//!
//! It must never do the work that a share is for, and must not know which resources exist.

mod count;
mod holder;
mod resource;
mod share;
#[cfg(test)]
mod testing;
mod turns;

pub use self::{
    count::Level,
    holder::Holder,
    resource::{Exhausted, Resource},
    share::{Share, Shares},
    turns::{Turn, TurnResources, Turns},
};
