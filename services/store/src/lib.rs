//! Storage on sea-orm: PostgreSQL and SQLite. Configuration with its change feed and directory, and
//! the ledger: events, deliveries, attempts.
//!
//! All SQL is here and nowhere else. It speaks the model, never wire types; every call on behalf of
//! a caller takes the principal. It must never let a row of one project be seen by a principal of
//! another.

mod api_keys;
mod audit;
mod bootstrap;
mod changes;
mod cipher;
mod clock;
mod commit_log;
mod connect;
mod directory;
mod endpoint_secrets;
mod endpoints;
mod entity;
mod error;
mod event_types;
mod failure;
mod hosts;
mod ledger;
mod lists;
mod master_key_check;
mod measure;
mod options;
mod organizations;
mod patience;
mod pooler;
mod probes;
mod projects;
mod queries;
mod questions;
mod requests;
mod retention;
mod schema;
mod sealing;
mod session;
mod sessions;
mod subscriptions;
mod target;
mod transaction;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use api_keys::{ApiKeyChange, NewApiKey};
pub use audit::{
    AuditScope, AuditTurn, Audited, AuditedKeys, Discrepancy, Finding, KeyPlace, ProjectAudit,
};
pub use bootstrap::{Bootstrapped, First, NewInstallation};
pub use changes::{Change, ChangeAction, ChangeKind};
pub use cipher::{InvalidMasterKeys, MasterKeys};
pub use clock::Clock;
pub use commit_log::{LogEntry, LogKind, LogPage, LogPlace};
pub use connect::{Backend, Store, check_url};
pub use directory::{Directory, EndpointEntry};
pub use endpoints::{EndpointChange, NewEndpoint};
pub use event_types::{Catalogue, CatalogueEntry, EventTypeChange, NewEventType};
pub use failure::{Failure, FailureKind};
pub use ledger::{
    Accepted, Backlog, CancelScope, Claim, ClaimedJob, FoundEvent, Ledger, LedgerError,
    LedgerOptions, NewEvent, QueuedRef, Settled, Standing, UsedKey, open_with as open_ledger,
};
pub use options::{DatabaseOptions, DirectoryOptions, StoreOptions};
pub use probes::Work;
pub use projects::{NewProject, ProjectChange};
pub use queries::{AttemptFilter, DeliveryFilter, Erased, EventFilter};
pub use retention::{Dropped, Gone, Progress, Step};
pub use schema::MigrationState;
pub use sealing::Sealed;
pub use subscriptions::{NewSubscription, SubscriptionChange};
pub use target::masked as masked_url;
