//! The egress: the only part of Outrider that opens connections to the outside, in the sender's
//! process or as an HTTP CONNECT proxy.
//!
//! A host is judged by its name, looked up once, and all of its addresses are judged; then exactly
//! those are dialed. It must never dial what the policy of `outrider_model::address` does not
//! allow, look a name up a second time, read what a tunnel carries, or tell a caller which address
//! a name has.

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
