//! The shapes in which Outrider is tested.

/// The roles, in the order in which they are started.
pub const ROLES: [&str; 6] = ["egress", "dispatch", "admin", "ingest", "worker", "gateway"];

/// The backends and the number of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    /// SQLite and the embedded queue in one process.
    Sqlite,
    /// PostgreSQL and Redis, all roles in one process.
    Postgres,
    /// PostgreSQL and Redis, six processes.
    Mesh,
}
