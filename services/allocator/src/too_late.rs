//! The error of a second allocator for SQLite.

/// SQLite cannot be told what to allocate with, since it was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLate;

impl std::fmt::Display for TooLate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("SQLite was used before it was told what to allocate with")
    }
}

impl std::error::Error for TooLate {}
