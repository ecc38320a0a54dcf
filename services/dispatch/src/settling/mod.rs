//! Settling: turns a worker's report into the next state of its delivery, and removes its job.

mod finisher;
mod settler;

pub use finisher::Finisher;
pub use settler::Settler;
