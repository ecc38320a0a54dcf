//! Settling: from a worker's report to the next state of its delivery, and to the end of its job.

mod finisher;
mod report;
mod settler;

pub use finisher::Finisher;
pub use settler::Settler;
