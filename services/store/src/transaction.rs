//! Transactions that change configuration: one after the other, each with its entries in the feed
//! of changes.

use outrider_model::{
    Error, OrganizationId, Principal, ProjectId, Result, Timestamp, principal::Actor,
};
use outrider_shares::{Holder, Turn};
use rand::RngExt;
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, SqliteTransactionMode, Statement, TransactionOptions,
    TransactionTrait,
};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    Backend, ChangeAction, ChangeKind, Store,
    changes::{self, Entry},
    error::unavailable,
};

/// The advisory lock of PostgreSQL that orders changes of configuration: "outrider" in ASCII.
pub(crate) const LOCK: i64 = 0x6f75_7472_6964_6572;

/// Begins a transaction that no other process or task has at the same time. On PostgreSQL an
/// advisory lock is held until the commit: the order of changes is the order of commits, and what
/// was read is still true when it is written. On SQLite the lock for writing is taken at the
/// beginning, so that it is waited for and never refused half way.
pub(crate) async fn begin(store: &Store) -> Result<DatabaseTransaction> {
    let transaction = begin_beside(store).await?;
    lock(store, &transaction).await?;
    Ok(transaction)
}

/// The same for work that an operator asks for, which takes the time it takes: no statement is
/// ended for its length, nor for how long it waits for the lock.
pub(crate) async fn begin_unhurried(store: &Store) -> Result<DatabaseTransaction> {
    let transaction = begin_unhurried_beside(store).await?;
    lock(store, &transaction).await?;
    Ok(transaction)
}

/// The same without the lock.
pub(crate) async fn begin_unhurried_beside(store: &Store) -> Result<DatabaseTransaction> {
    let transaction = begin_beside(store).await?;
    if store.backend() == Backend::Postgres {
        transaction
            .execute_unprepared("SET LOCAL statement_timeout = 0")
            .await
            .map_err(unavailable)?;
    }
    Ok(transaction)
}

async fn lock(store: &Store, transaction: &DatabaseTransaction) -> Result<()> {
    if store.backend() == Backend::Postgres {
        let lock = Statement::from_sql_and_values(
            Backend::Postgres.into(),
            "SELECT pg_advisory_xact_lock($1)",
            [LOCK.into()],
        );
        transaction.query_one_raw(lock).await.map_err(unavailable)?;
    }
    Ok(())
}

/// Begins a transaction that others may have beside it on PostgreSQL; on SQLite it is the only one
/// that writes.
pub(crate) async fn begin_beside(store: &Store) -> Result<DatabaseTransaction> {
    store.write().begin_with_options(writing()).await.map_err(unavailable)
}

/// How a transaction begins that writes.
pub(crate) fn writing() -> TransactionOptions {
    TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    }
}

/// One change of configuration by somebody. Dropped without a commit, it changes nothing.
pub(crate) struct Transaction {
    pub database: DatabaseTransaction,
    /// One time for all that it writes.
    pub now: Timestamp,
    by: Holder,
    /// To have a connection, and to change configuration.
    _turns: (Turn, Turn),
}

impl Transaction {
    /// Begins it when it is the caller's turn. Which project it is about is not known to be reached
    /// yet.
    pub async fn begin(store: &Store, principal: &Principal) -> Result<Self> {
        Self::begin_as(store, Holder::of(principal)).await
    }

    /// The same for an organisation that is being made.
    pub async fn begin_in(
        store: &Store,
        actor: Actor,
        organization: OrganizationId,
    ) -> Result<Self> {
        Self::begin_as(store, Holder { organization, project: None, actor }).await
    }

    async fn begin_as(store: &Store, by: Holder) -> Result<Self> {
        let connection = store.connection_turn(by).await?;
        let turns = (connection, store.change_turn(by).await?);
        Ok(Self { database: begin(store).await?, now: store.clock().now(), by, _turns: turns })
    }

    /// Tells the feed that an object was created, changed (`before` and `after`) or deleted. The
    /// JSON must hold no secrets.
    pub async fn record(
        &self,
        kind: ChangeKind,
        project: Option<ProjectId>,
        object: Uuid,
        before: Option<Value>,
        after: Option<Value>,
    ) -> Result<()> {
        let action = match (&before, &after) {
            (None, _) => ChangeAction::Create,
            (Some(_), Some(_)) => ChangeAction::Update,
            (Some(_), None) => ChangeAction::Delete,
        };
        let entry = Entry {
            at: self.now,
            organization: self.by.organization,
            project,
            actor: self.by.actor,
            kind,
            object,
            action,
            before,
            after,
        };
        changes::insert(&self.database, entry).await
    }

    pub async fn commit(self) -> Result<(), Error> {
        self.database.commit().await.map_err(unavailable)
    }
}

/// 8 random bytes for a new id.
pub(crate) fn random() -> u64 {
    rand::rng().random()
}
