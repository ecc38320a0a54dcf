//! Probes: whether the database does what the work of this process needs, that is whether the role
//! has the rights and whether the database accepts writes. A probe is the real statement over no
//! row, because only the statement itself finds every obstacle, in the server's own words.

mod ask;
mod refusals;
mod tables;
#[cfg(test)]
mod tests;
mod work;

pub(crate) use ask::refused;
pub(crate) use refusals::{Refusal, Refusals, SESSION, names};
pub use work::Work;
