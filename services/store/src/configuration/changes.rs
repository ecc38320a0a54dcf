//! The change feed: who changed what, before and after, in the order of commits, without gaps.

use outrider_model::{OrganizationId, ProjectId, Result, Timestamp, principal::Actor};
use sea_orm::{
    ActiveValue::Set, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    prelude::*,
};
use serde_json::Value;
use uuid::Uuid;

use super::entity::change;
use crate::{Store, connection::error::unavailable};

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {$(#[doc = concat!("Stored as `", $text, "`.")] $variant,)*}

        impl $name {
            /// The stored text.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {$(Self::$variant => $text,)*}
            }

            /// From the stored text.
            #[must_use]
            pub fn from_text(text: &str) -> Option<Self> {
                match text {$($text => Some(Self::$variant),)* _ => None}
            }
        }
    )*};
}

texts! {
    /// What was changed.
    ChangeKind {
        Organization = "organization"
        Project = "project"
        ApiKey = "api_key"
        Endpoint = "endpoint"
        Subscription = "subscription"
        EventType = "event_type"
    }
    /// How it was changed.
    ChangeAction {
        Create = "create"
        Update = "update"
        Delete = "delete"
    }
}

/// An entry of the change feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The position: 1 for the first entry, then without gaps, in the order of commits.
    pub seq: i64,
    pub at: Timestamp,
    pub organization: OrganizationId,
    /// None for what belongs to the organization. For a project: itself.
    pub project: Option<ProjectId>,
    /// The text of an [`Actor`].
    pub actor: String,
    /// None for a kind that only a newer version knows.
    pub kind: Option<ChangeKind>,
    pub object: Uuid,
    /// None for an action that only a newer version knows.
    pub action: Option<ChangeAction>,
    /// JSON without secrets. Absent if the object was created.
    pub before: Option<String>,
    /// JSON without secrets. Absent if the object was deleted.
    pub after: Option<String>,
}

/// An entry to write.
pub(crate) struct Entry {
    pub at: Timestamp,
    pub organization: OrganizationId,
    pub project: Option<ProjectId>,
    pub actor: Actor,
    pub kind: ChangeKind,
    pub object: Uuid,
    pub action: ChangeAction,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

/// The position of the last entry. 0 before the first.
pub(crate) async fn last_seq(database: &impl ConnectionTrait) -> Result<i64> {
    let last = change::Entity::find()
        .select_only()
        .column(change::Column::Seq)
        .order_by_desc(change::Column::Seq);
    let last = last.into_tuple::<i64>().one(database).await.map_err(unavailable)?;
    Ok(last.unwrap_or(0))
}

/// Writes an entry. Only in a transaction of [`crate::connection::transaction::begin`], whose lock
/// reserves the next number. So a reader that saw a number has seen all before it. The numbers of a
/// sequence would not guarantee that: they are given out of order and lost by rollbacks.
pub(crate) async fn insert(database: &impl ConnectionTrait, entry: Entry) -> Result<()> {
    let row = change::ActiveModel {
        seq: Set(last_seq(database).await? + 1),
        at: Set(entry.at.0),
        organization_id: Set(entry.organization.0),
        project_id: Set(entry.project.map(|project| project.0)),
        actor: Set(entry.actor.to_string()),
        kind: Set(entry.kind.as_str().to_owned()),
        object_id: Set(entry.object),
        action: Set(entry.action.as_str().to_owned()),
        before: Set(entry.before.map(|value| value.to_string())),
        after: Set(entry.after.map(|value| value.to_string())),
    };
    change::Entity::insert(row).exec_without_returning(database).await.map_err(unavailable)?;
    Ok(())
}

impl Store {
    /// Up to `limit` entries from position `from`, in order. For roles, not on behalf of a caller:
    /// it takes no principal.
    pub async fn changes(&self, from: i64, limit: u64) -> Result<Vec<Change>> {
        let rows = change::Entity::find()
            .filter(change::Column::Seq.gte(from))
            .order_by_asc(change::Column::Seq)
            .limit(limit)
            .all(self.read())
            .await
            .map_err(unavailable)?;
        Ok(rows.into_iter().map(from_row).collect())
    }

    /// The last entry of the feed. None before the first.
    pub async fn last_change(&self) -> Result<Option<Change>> {
        let row = change::Entity::find()
            .order_by_desc(change::Column::Seq)
            .one(self.read())
            .await
            .map_err(unavailable)?;
        Ok(row.map(from_row))
    }
}

fn from_row(row: change::Model) -> Change {
    Change {
        seq: row.seq,
        at: Timestamp(row.at),
        organization: OrganizationId(row.organization_id),
        project: row.project_id.map(ProjectId),
        actor: row.actor,
        kind: ChangeKind::from_text(&row.kind),
        object: row.object_id,
        action: ChangeAction::from_text(&row.action),
        before: row.before,
        after: row.after,
    }
}
