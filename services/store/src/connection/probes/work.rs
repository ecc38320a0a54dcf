//! The kinds of work.

/// What a process does with the database, besides reading configuration, which all processes do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Changes configuration.
    Configuration,
    /// Looks up jobs.
    Jobs,
    /// Writes, serves and deletes events and deliveries.
    Deliveries,
    /// Accepts events, which another process writes.
    Intake,
}
