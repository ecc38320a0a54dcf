//! Organizations: a principal sees its own.

use outrider_model::{
    Error, Meta, Noun, Organization, OrganizationId, OrganizationSpec, Page, PageRequest,
    Principal, ProjectId, Reason, Result, Timestamp, principal::Actor,
};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter,
    QueryOrder, Select,
};
use serde_json::{Value, json};

use super::{
    entity::organization::{ActiveModel, Column, Entity, Model},
    resource::{self, OwnOrganization, Resource, Values, by_id},
    transaction::{Transaction, random},
};
use crate::{ChangeKind, Store, cipher::MasterKeys, connection::error::unavailable};

impl Store {
    /// Creates an organization. For the bootstrap command only, not on behalf of a caller.
    pub async fn create_organization(&self, actor: Actor, name: &str) -> Result<Organization> {
        let id = OrganizationId::new(self.clock().now(), random());
        let transaction = Transaction::begin_in(self, actor, id).await?;
        let spec = OrganizationSpec { name: name.to_owned() };
        let organization = Noun::new(id, (), spec, transaction.now);
        resource::insert(&transaction, &organization, &()).await?;
        transaction.commit().await?;
        Ok(organization)
    }

    /// The organization of the principal. Errors: `NOT_FOUND` for any other.
    pub async fn get_organization(
        &self,
        principal: &Principal,
        id: OrganizationId,
    ) -> Result<Organization> {
        let which = by_id::<OrganizationSpec>(id);
        resource::get(self, principal, OwnOrganization, which, Values::Masked).await
    }

    /// The organizations that the principal reaches: its own.
    pub async fn list_organizations(
        &self,
        principal: &Principal,
        page: PageRequest,
    ) -> Result<Page<Organization>> {
        resource::list(self, principal, OwnOrganization, Condition::all(), page).await
    }

    /// Changes the spec. Errors: `NOT_FOUND`, `BEYOND_OWN_SCOPE` for a key that is bound to a
    /// project.
    pub async fn update_organization(
        &self,
        principal: &Principal,
        id: OrganizationId,
        change: impl FnOnce(&mut OrganizationSpec) + Send,
    ) -> Result<Organization> {
        if principal.organization != id {
            return Err(Error::not_found(OrganizationSpec::WHAT));
        }
        require_whole_organization(principal)?;
        let which = by_id::<OrganizationSpec>(id);
        resource::update(self, principal, OwnOrganization, which, change).await
    }
}

impl Resource for OrganizationSpec {
    const WHAT: &'static str = "organization";
    const KIND: ChangeKind = ChangeKind::Organization;
    type Entity = Entity;
    const ID: Column = Column::Id;
    type Parent = OwnOrganization;
    type Secret = ();

    fn from_row(row: Model, _: Values<'_>) -> Result<Organization> {
        let meta = Meta {
            id: OrganizationId(row.id),
            fixed: (),
            created_at: Timestamp(row.created_at),
            updated_at: Timestamp(row.updated_at),
        };
        Ok(Noun { meta, spec: Self { name: row.name } })
    }

    fn to_row(organization: &Organization, _: &MasterKeys) -> Result<ActiveModel> {
        Ok(ActiveModel {
            id: Set(organization.id.0),
            name: Set(organization.spec.name.clone()),
            created_at: Set(organization.created_at.0),
            updated_at: Set(organization.updated_at.0),
        })
    }

    fn within_reach(principal: &Principal, _: OwnOrganization) -> Select<Entity> {
        Entity::find().filter(Column::Id.eq(principal.organization.0))
    }

    fn project(_: &Organization) -> Option<ProjectId> {
        None
    }

    fn describe(organization: &Organization) -> Value {
        json!({"organization_id": organization.id.to_string(), "name": organization.spec.name})
    }
}

/// The oldest organization, for any caller. None in a new database.
pub(super) async fn oldest(database: &impl ConnectionTrait) -> Result<Option<Organization>> {
    let first = Entity::find().order_by_asc(Column::Id);
    let row = first.one(database).await.map_err(unavailable)?;
    row.map(|row| OrganizationSpec::from_row(row, Values::Masked)).transpose()
}

/// Refuses what concerns the whole organization to a key that is bound to a project or an owner.
pub(super) fn require_whole_organization(principal: &Principal) -> Result<()> {
    match (principal.project, &principal.owner) {
        (None, None) => Ok(()),
        _ => Err(Error::new(Reason::BeyondOwnScope, "the API key is bound to a project")),
    }
}
