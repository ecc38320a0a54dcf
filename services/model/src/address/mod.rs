//! The policy for addresses, names and ports of the outside. The same rules apply in the API, when
//! sending, and when dialing.
//!
//! Of IPv4, everything is allowed except the special-purpose table; of IPv6, 2000::/3 except its
//! table. IPv6 addresses that no table knows are refused. An installation can allow and deny
//! networks, addresses and names in addition ([`Policy`]).

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
