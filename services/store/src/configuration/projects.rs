//! Projects: a principal sees those of its organization, or the one that it is bound to. Deleted
//! projects count as not existing.

use std::time::Duration;

use outrider_model::{
    Error, Meta, Noun, OrganizationId, Page, PageRequest, Principal, Project, ProjectFixed,
    ProjectId, ProjectSpec, Reason, Result, SchemaValidation, Timestamp,
};
use outrider_shares::Holder;
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, Select,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    entity::project::{ActiveModel, Column, Entity, Model},
    organizations::require_whole_organization,
    resource::{
        self, New, OwnOrganization, Parent, Resource, Values, by_id, row_of_anybody, update_row,
    },
    settings,
    transaction::Transaction,
};
use crate::{
    ChangeKind, Store,
    cipher::MasterKeys,
    connection::{
        callers::CallerConnection,
        error::{taken, unavailable},
    },
};

const TABLE: &str = "projects";

/// A project to create.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewProject {
    /// Generated if absent.
    pub id: Option<ProjectId>,
    pub spec: ProjectSpec,
}

impl Store {
    /// Creates a project. Errors: `ALREADY_EXISTS`, `NOT_FOUND` if another organization has the
    /// given id, `IDEMPOTENCY_CONFLICT`, `BEYOND_OWN_SCOPE` for a key that is bound to a project.
    pub async fn create_project(
        &self,
        principal: &Principal,
        new: NewProject,
        request_id: Option<&str>,
    ) -> Result<Project> {
        require_whole_organization(principal)?;
        let NewProject { id, spec } = new;
        let mut content = json!({
            "id": id.map(|id| id.to_string()), "name": spec.name,
            "schema_validation": spec.schema_validation as u8,
        });
        if let Some(length) = spec.payload_retention {
            // Only if set, so that request ids of versions before this field stay valid.
            content["payload_retention"] = micros(length).into();
        }
        let content = settings::describe(&spec, content);
        let fixed = ProjectFixed { organization: principal.organization };
        let new = New { id, fixed, spec, secret: () };
        resource::create(self, principal, OwnOrganization, new, &content, request_id)
            .await
            .map(|created| created.noun)
    }

    /// A project. Errors: `NOT_FOUND`.
    pub async fn get_project(&self, principal: &Principal, id: ProjectId) -> Result<Project> {
        find(&self.connection_of(principal), principal, id).await
    }

    /// The projects that the principal reaches.
    pub async fn list_projects(
        &self,
        principal: &Principal,
        page: PageRequest,
    ) -> Result<Page<Project>> {
        resource::list(self, principal, OwnOrganization, Condition::all(), page).await
    }

    /// Changes the spec. Errors: `NOT_FOUND`, `BEYOND_OWN_SCOPE` for a key that is bound to an
    /// owner.
    pub async fn update_project(
        &self,
        principal: &Principal,
        id: ProjectId,
        change: impl FnOnce(&mut ProjectSpec) + Send,
    ) -> Result<Project> {
        let which = by_id::<ProjectSpec>(id);
        resource::update(self, principal, OwnOrganization, which, change).await
    }

    /// Deletes a project. Nothing that belongs to it is found any longer. Errors: `NOT_FOUND`,
    /// `BEYOND_OWN_SCOPE` for a key that is bound to an owner.
    pub async fn delete_project(&self, principal: &Principal, id: ProjectId) -> Result<()> {
        let which = by_id::<ProjectSpec>(id);
        resource::delete::<ProjectSpec>(self, principal, OwnOrganization, which).await
    }
}

impl Resource for ProjectSpec {
    const WHAT: &'static str = "project";
    const KIND: ChangeKind = ChangeKind::Project;
    type Entity = Entity;
    const ID: Column = Column::Id;
    type Parent = OwnOrganization;
    type Secret = ();

    fn from_row(row: Model, _: Values<'_>) -> Result<Project> {
        let meta = Meta {
            id: ProjectId(row.id),
            fixed: ProjectFixed { organization: OrganizationId(row.organization_id) },
            created_at: Timestamp(row.created_at),
            updated_at: Timestamp(row.updated_at),
        };
        let mut spec: Self = settings::read(TABLE, row.settings.as_deref())?;
        spec.name = row.name;
        // The mode may be one that only a newer version knows.
        spec.schema_validation =
            SchemaValidation::from_number(row.schema_validation.into()).unwrap_or_default();
        spec.payload_retention =
            row.payload_retention_micros.map(|micros| Duration::from_micros(micros.unsigned_abs()));
        Ok(Noun { meta, spec })
    }

    fn to_row(project: &Project, _: &MasterKeys) -> Result<ActiveModel> {
        Ok(ActiveModel {
            id: Set(project.id.0),
            organization_id: Set(project.fixed.organization.0),
            name: Set(project.spec.name.clone()),
            schema_validation: Set(i16::from(project.spec.schema_validation as u8)),
            payload_retention_micros: Set(project.spec.payload_retention.map(micros)),
            created_at: Set(project.created_at.0),
            updated_at: Set(project.updated_at.0),
            settings: Set(settings::write(&project.spec)?),
            ..ActiveModel::default()
        })
    }

    fn within_reach(principal: &Principal, _: OwnOrganization) -> Select<Entity> {
        let own = Entity::find()
            .filter(Column::OrganizationId.eq(principal.organization.0))
            .filter(Column::DeletedAt.is_null());
        match principal.project {
            Some(bound) => own.filter(Column::Id.eq(bound.0)),
            None => own,
        }
    }

    fn permit(principal: &Principal, _: Option<&Project>) -> Result<()> {
        require_no_owner(principal)
    }

    /// An id that a project of another organization has or had counts as not found.
    async fn admit(
        transaction: &Transaction<'_>,
        principal: &Principal,
        project: &Project,
    ) -> Result<()> {
        match row_of_anybody::<Self>(&transaction.database, project.id).await? {
            Some(row) => Err(taken(Self::WHAT, row.organization_id == principal.organization.0)),
            None => Ok(()),
        }
    }

    async fn remove(transaction: &Transaction<'_>, project: &Project) -> Result<()> {
        let row = ActiveModel {
            id: Set(project.id.0),
            deleted_at: Set(Some(transaction.now.0)),
            ..ActiveModel::default()
        };
        update_row::<Self>(transaction, row).await
    }

    fn project(project: &Project) -> Option<ProjectId> {
        Some(project.id)
    }

    fn describe(project: &Project) -> Value {
        let columns = json!({
            "project_id": project.id.to_string(), "name": project.spec.name,
            "schema_validation": project.spec.schema_validation as u8,
            "payload_retention_micros": project.spec.payload_retention.map(micros),
        });
        settings::describe(&project.spec, columns)
    }
}

/// What is looked for in a project.
impl Parent for ProjectId {
    async fn require(self, database: &impl ConnectionTrait, principal: &Principal) -> Result<()> {
        find(database, principal, self).await.map(drop)
    }

    fn connection<'s>(self, store: &'s Store, principal: &Principal) -> CallerConnection<'s> {
        store.caller_connection(Holder::within(principal, self))
    }

    fn scope(self, _: &Principal) -> Uuid {
        self.0
    }
}

/// The project, if it exists and the principal reaches it. This is the check before anything that
/// belongs to a project.
pub(crate) async fn find(
    database: &impl ConnectionTrait,
    principal: &Principal,
    id: ProjectId,
) -> Result<Project> {
    let which = by_id::<ProjectSpec>(id);
    resource::find(database, principal, OwnOrganization, which, Values::Masked).await
}

/// The project, for any caller. None if it does not exist or was deleted.
pub(crate) async fn load(
    database: &impl ConnectionTrait,
    id: ProjectId,
) -> Result<Option<Project>> {
    let existing = Entity::find_by_id(id.0).filter(Column::DeletedAt.is_null());
    let row = existing.one(database).await.map_err(unavailable)?;
    row.map(|row| ProjectSpec::from_row(row, Values::Masked)).transpose()
}

/// Refuses what concerns other owners too to a key that is bound to an owner of endpoints.
pub(crate) fn require_no_owner(principal: &Principal) -> Result<()> {
    if principal.owner.is_some() {
        return Err(Error::new(
            Reason::BeyondOwnScope,
            "the API key is bound to an owner of endpoints",
        ));
    }
    Ok(())
}

fn micros(length: Duration) -> i64 {
    i64::try_from(length.as_micros()).unwrap_or(i64::MAX)
}
