//! The background work of dispatch: repair, retention, measurements and the audit.

mod audit;
mod meter;
mod sweeper;
mod watch;

pub use audit::Auditor;
pub use meter::Meter;
pub use sweeper::Sweeper;
pub use watch::QueueWatch;
