//! Which addresses, names and ports of the outside may be reached: the same rules at the API, at
//! the sending and at the dialing.
//!
//! IPv4 is everything but the special-purpose table, IPv6 is 2000::/3 but its table. What a table
//! does not know of IPv6 is refused. An installation may allow and deny networks, addresses and
//! names besides ([`Policy`]).

mod classify;
mod entries;
mod metadata;
mod names;
mod policy;
mod ports;
mod refused;

pub use self::{
    classify::{Classification, classify, is_localhost},
    entries::{Entry, MAX_ENTRIES, MalformedEntry},
    policy::{Basis, Judged, Name, Policy},
    ports::is_web_port,
    refused::Refused,
};

#[cfg(test)]
mod iana;
#[cfg(test)]
mod lists;
#[cfg(test)]
mod tests;
