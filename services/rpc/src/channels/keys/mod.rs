//! API keys for a gateway in its own process: it asks the roles that read keys, and caches their
//! answers briefly.

mod principal;
mod remembered;
mod remote;
mod server;
#[cfg(test)]
mod tests;

pub use principal::invalid;
pub use remembered::{KeyCacheOptions, RememberedKeys};
pub use remote::RemoteKeys;
pub use server::service;
