//! The connection to the database: where it is, how sessions are opened and checked, its clock, its
//! schema, and whether it does what this process needs. A [`Store`](store::Store) is the result.

pub(crate) mod backend;
pub(crate) mod callers;
pub(crate) mod clock;
pub(crate) mod connect;
pub(crate) mod error;
pub(crate) mod failure;
mod hosts;
mod measure;
pub(crate) mod options;
pub(crate) mod partitions;
pub(crate) mod patience;
mod pooler;
pub(crate) mod probes;
mod readiness;
pub(crate) mod schema;
mod session;
pub(crate) mod sessions;
mod settings;
pub(crate) mod store;
pub(crate) mod target;
#[cfg(test)]
mod tests;
pub(crate) mod transaction;
mod turns;
