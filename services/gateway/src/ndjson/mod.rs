//! Uploads of newline-delimited JSON: lines are read as they come, travel in calls of many, and are
//! answered by a line each, in order. Which methods take them is said by the option `ndjson` in the
//! protos.
//!
//! An upload has no length. What it holds is bounded: a line, a batch in the making, the batches of
//! its calls, and results that the client does not take; then it is read no further.

mod answer;
mod batch;
pub(crate) mod lines;
mod upload;

pub(crate) use answer::{answer, asked, first_results};
