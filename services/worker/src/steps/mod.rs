//! The steps of a job, in order: read, take in hand, wait for a turn, send, report.

mod asking;
mod attempt;
mod batches;
mod intake;
mod places;
mod reader;
mod reporter;
mod sender;
pub(crate) mod turns;

pub(crate) use reader::Reader;
pub(crate) use reporter::Reporter;
