//! Storage on PostgreSQL and SQLite, by sea-orm and sqlx. All SQL of Outrider is here.
//!
//! The store has three parts: the `connection` to the database, the `configuration` with its change
//! feed and directory, and the `history` of events, deliveries and attempts, which the `ledger`
//! writes. It speaks the model, never wire types. Every call on behalf of a caller takes the
//! principal.
//!
//! It must never let a principal of one project see a row of another. It must never report a write
//! as done before its commit.

mod cipher;
mod configuration;
mod connection;
mod days;
mod history;
mod ledger;

#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use cipher::{InvalidMasterKeys, MasterKeys};
pub use configuration::{
    api_keys::NewApiKey,
    bootstrap::{Bootstrapped, First, NewInstallation},
    changes::{Change, ChangeAction, ChangeKind},
    directory::{Directory, DirectoryOptions, EndpointEntry},
    endpoints::NewEndpoint,
    event_types::{Catalog, CatalogEntry, NewEventType},
    projects::NewProject,
    sealing::Sealed,
    subscriptions::NewSubscription,
};
pub use connection::{
    backend::{Backend, check_url},
    clock::Clock,
    failure::{Failure, FailureKind},
    options::{DatabaseOptions, StoreOptions},
    probes::Work,
    schema::MigrationState,
    store::Store,
    target::masked as masked_url,
};
pub use history::{
    audit::{
        AuditScope, AuditTurn, Audited, AuditedKeys, Discrepancy, Finding, KeyPosition,
        ProjectAudit,
    },
    commit_log::{LogEntry, LogKind, LogPage, LogPosition},
    ledger::open_with as open_ledger,
    queries::{AttemptFilter, DeliveryFilter, EventFilter},
    retention::{DeletedRows, Dropped, Erased, Progress, Step},
};
pub use ledger::{
    Accepted, Backlog, CancelScope, Claim, ClaimedJob, FoundEvent, Ledger, LedgerError,
    LedgerOptions, NewEvent, PendingSummary, QueuedRef, Settled,
};
