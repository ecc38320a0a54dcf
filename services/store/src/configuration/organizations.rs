//! Organizations: a principal sees its own.

use outrider_model::{
    Error, Organization, OrganizationId, Page, PageRequest, Principal, Reason, Result, Timestamp,
    principal::Actor,
};
use sea_orm::{
    ActiveValue::{Set, Unchanged},
    ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder,
};
use serde_json::{Value, json};

use super::{
    entity::organization,
    lists,
    transaction::{Transaction, random},
};
use crate::{
    ChangeKind, Store,
    connection::error::{exists, unavailable},
};

const WHAT: &str = "organization";

impl Store {
    /// Creates an organization. For the bootstrap command only, not on behalf of a caller.
    pub async fn create_organization(&self, actor: Actor, name: &str) -> Result<Organization> {
        let id = OrganizationId::new(self.clock().now(), random());
        let transaction = Transaction::begin_in(self, actor, id).await?;
        let organization = insert(&transaction, id, name).await?;
        transaction.commit().await?;
        Ok(organization)
    }

    /// The organization of the principal. Errors: `NOT_FOUND` for any other.
    pub async fn get_organization(
        &self,
        principal: &Principal,
        id: OrganizationId,
    ) -> Result<Organization> {
        find(&self.connection_of(principal), principal, id).await
    }

    /// The organizations that the principal reaches: its own.
    pub async fn list_organizations(
        &self,
        principal: &Principal,
        page: PageRequest,
    ) -> Result<Page<Organization>> {
        let own = organization::Entity::find()
            .filter(organization::Column::Id.eq(principal.organization.0));
        let rows = lists::page(
            &self.connection_of(principal),
            own,
            organization::Column::Id,
            page,
            |row| row.id,
        )
        .await?;
        Ok(rows.map(from_row))
    }

    /// Changes the given fields. Errors: `NOT_FOUND`, `BEYOND_OWN_SCOPE` for a key that is bound to
    /// a project.
    pub async fn update_organization(
        &self,
        principal: &Principal,
        id: OrganizationId,
        name: Option<String>,
    ) -> Result<Organization> {
        if principal.organization != id {
            return Err(Error::not_found(WHAT));
        }
        require_whole_organization(principal)?;
        let transaction = Transaction::begin(self, principal).await?;
        let before = find(&transaction.database, principal, id).await?;
        let mut after = before.clone();
        after.name = name.unwrap_or(after.name);
        if after == before {
            return Ok(before);
        }
        after.updated_at = transaction.now;
        let row = organization::ActiveModel {
            id: Unchanged(id.0),
            name: Set(after.name.clone()),
            updated_at: Set(after.updated_at.0),
            ..Default::default()
        };
        organization::Entity::update(row).exec(&transaction.database).await.map_err(unavailable)?;
        transaction
            .record(
                ChangeKind::Organization,
                None,
                id.0,
                Some(describe(&before)),
                Some(describe(&after)),
            )
            .await?;
        transaction.commit().await?;
        Ok(after)
    }
}

/// Adds an organization, in a transaction that was begun in it.
pub(super) async fn insert(
    transaction: &Transaction,
    id: OrganizationId,
    name: &str,
) -> Result<Organization> {
    let now = transaction.now;
    let organization = Organization { id, name: name.to_owned(), created_at: now, updated_at: now };
    let row = organization::ActiveModel {
        id: Set(id.0),
        name: Set(organization.name.clone()),
        created_at: Set(now.0),
        updated_at: Set(now.0),
    };
    organization::Entity::insert(row)
        .exec_without_returning(&transaction.database)
        .await
        .map_err(exists(WHAT))?;
    transaction
        .record(ChangeKind::Organization, None, id.0, None, Some(describe(&organization)))
        .await?;
    Ok(organization)
}

/// The oldest organization, for any caller. None in a new database.
pub(super) async fn oldest(database: &impl ConnectionTrait) -> Result<Option<Organization>> {
    let first = organization::Entity::find().order_by_asc(organization::Column::Id);
    Ok(first.one(database).await.map_err(unavailable)?.map(from_row))
}

/// Refuses what concerns the whole organization to a key that is bound to a project or an owner.
pub(super) fn require_whole_organization(principal: &Principal) -> Result<()> {
    match (principal.project, &principal.owner) {
        (None, None) => Ok(()),
        _ => Err(Error::new(Reason::BeyondOwnScope, "the API key is bound to a project")),
    }
}

async fn find(
    database: &impl ConnectionTrait,
    principal: &Principal,
    id: OrganizationId,
) -> Result<Organization> {
    if principal.organization != id {
        return Err(Error::not_found(WHAT));
    }
    let row = organization::Entity::find_by_id(id.0).one(database).await.map_err(unavailable)?;
    row.map(from_row).ok_or_else(|| Error::not_found(WHAT))
}

fn from_row(row: organization::Model) -> Organization {
    Organization {
        id: OrganizationId(row.id),
        name: row.name,
        created_at: Timestamp(row.created_at),
        updated_at: Timestamp(row.updated_at),
    }
}

fn describe(organization: &Organization) -> Value {
    json!({"organization_id": organization.id.to_string(), "name": organization.name})
}
