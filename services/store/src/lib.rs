//! Storage on sea-orm: PostgreSQL and SQLite. Configuration with its change feed and directory, and the ledger: events, deliveries,
//! attempts.
//!
//! All SQL is here and nowhere else. It speaks the model, never wire types; every call on behalf of a caller takes the principal. It
//! must never let a row of one project be seen by a principal of another.

mod ledger;
mod directory;

pub use directory::{Directory, DirectoryOptions, EndpointEntry};
pub use ledger::{
    Accepted, Backlog, CancelScope, Claim, ClaimedJob, Ledger, LedgerError, NewEvent, QueuedRef, Settled,
};
