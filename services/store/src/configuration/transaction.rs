//! Transactions that change configuration: one after the other, each with its entries in the change
//! feed.

use outrider_model::{
    Error, OrganizationId, Principal, ProjectId, Result, Timestamp, principal::Actor,
};
use outrider_shares::{Holder, Turn};
use rand::RngExt;
use sea_orm::DatabaseTransaction;
use serde_json::Value;
use uuid::Uuid;

use super::changes::{self, Entry};
use crate::{
    ChangeAction, ChangeKind, Store,
    connection::{error::unavailable, transaction::begin},
};

/// A configuration change by somebody. If dropped without a commit, it changes nothing.
pub(super) struct Transaction<'s> {
    pub store: &'s Store,
    pub database: DatabaseTransaction,
    /// The time of everything that it writes.
    pub now: Timestamp,
    by: Holder,
    /// To connect, and to change configuration.
    _turns: (Turn, Turn),
}

impl<'s> Transaction<'s> {
    /// Begins when it is the caller's turn. Whether the caller reaches the project in question is
    /// not known yet.
    pub async fn begin(store: &'s Store, principal: &Principal) -> Result<Self> {
        Self::begin_as(store, Holder::of(principal)).await
    }

    /// The same for an organization that is being created.
    pub async fn begin_in(
        store: &'s Store,
        actor: Actor,
        organization: OrganizationId,
    ) -> Result<Self> {
        Self::begin_as(store, Holder { organization, project: None, actor }).await
    }

    async fn begin_as(store: &'s Store, by: Holder) -> Result<Self> {
        let connection = store.connection_turn(by).await?;
        let turns = (connection, store.change_turn(by).await?);
        let (database, now) = (begin(store).await?, store.clock().now());
        Ok(Self { store, database, now, by, _turns: turns })
    }

    /// Writes to the feed that an object was created, changed (`before` and `after`) or deleted.
    /// The JSON must not contain secrets.
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
pub(super) fn random() -> u64 {
    rand::rng().random()
}
