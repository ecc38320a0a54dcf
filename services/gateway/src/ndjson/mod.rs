//! Uploads of newline-delimited JSON. Lines are read as they arrive, sent in calls of many, and
//! answered with one line each, in order. The option `ndjson` in the protos says which methods take
//! uploads.
//!
//! The length of an upload is unlimited, but the memory that it holds is limited: one line, the
//! batch under construction, the batches of its calls, and results that the client has not taken.
//! If that is full, nothing more is read.

mod answer;
mod batch;
pub(crate) mod lines;
mod upload;

pub(crate) use answer::{answer, first_results, rule_for};
