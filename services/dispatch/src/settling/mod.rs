//! Settling: from a worker's report to the next state of its delivery, and to the end of its job.

mod finisher;
mod settler;

pub use finisher::Finisher;
pub use settler::Settler;
