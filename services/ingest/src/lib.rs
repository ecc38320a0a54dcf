//! The role `ingest`: receives events, validates them and hands them to dispatch.
//!
//! It must never write to the database and never use the queue: an event is accepted when dispatch
//! reports that it is committed.

mod admission;
mod options;
mod service;
mod stream;

pub use options::{Given, Options};
pub use service::Ingest;
