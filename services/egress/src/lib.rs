//! The egress: the only part of Outrider that opens connections to the outside, in the sender's
//! process or as an HTTP CONNECT proxy.
//!
//! A host is checked by its name and looked up once. Then all of its addresses are checked, and
//! exactly those are dialed. The crate must never dial an address that the policy of
//! `outrider_model::address` does not allow, look up a name a second time, read the content of a
//! tunnel, or tell a caller which address a name has.

mod answer;
mod connect;
mod cut;
mod dial;
#[doc(hidden)]
pub mod fuzzed;
mod head;
mod options;
mod own;
mod proxy;
mod resolve;
mod tunnel;

pub use dial::{Egress, Examined, Stopped};
pub use options::{Given, Options, StartError};
pub use resolve::{NoAddress, Resolve, SystemResolver};

#[cfg(test)]
mod tests;
