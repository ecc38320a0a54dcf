//! The role `ingest`: takes events in, validates them and hands them to dispatch.
//!
//! It must never write to the database and never speak to the queue: an event is accepted when
//! dispatch says that it is committed.

mod admit;
mod fingerprint;
mod json;
mod judge;
mod large;
mod measure;
mod options;
mod service;
mod stream;
mod validate;

pub use options::{Given, Options};
pub use service::Ingest;
