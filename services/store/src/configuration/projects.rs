//! Projects: a principal sees those of its organization, or the one that it is bound to. Deleted
//! projects count as not existing.

use std::time::Duration;

use outrider_model::{
    Error, OrganizationId, Page, PageRequest, Principal, Project, ProjectId, Reason, Result,
    SchemaValidation, Timestamp,
};
use sea_orm::{
    ActiveValue::{Set, Unchanged},
    ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, Select,
};
use serde_json::{Value, json};

use super::{
    entity::project,
    lists,
    organizations::require_whole_organization,
    requests::Request,
    transaction::{Transaction, random},
};
use crate::{
    ChangeKind, Store,
    connection::error::{exists, taken, unavailable},
};

const WHAT: &str = "project";

/// A project to create.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewProject {
    /// Generated if absent.
    pub id: Option<ProjectId>,
    pub name: String,
    pub schema_validation: SchemaValidation,
    /// None: payloads are kept as long as their events.
    pub payload_retention: Option<Duration>,
}

/// A change of a project. Absent fields stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProjectChange {
    pub name: Option<String>,
    pub schema_validation: Option<SchemaValidation>,
    /// `Some(None)` removes it.
    pub payload_retention: Option<Option<Duration>>,
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
        let mut content = json!({
            "id": new.id.map(|id| id.to_string()), "name": new.name,
            "schema_validation": new.schema_validation as u8,
        });
        if let Some(length) = new.payload_retention {
            // Only if set, so that request ids of versions before this field stay valid.
            content["payload_retention"] = micros(length).into();
        }
        let request =
            Request::new(principal.organization.0, request_id, "create_project", &content);
        let transaction = Transaction::begin(self, principal).await?;
        if let Some(first) = Request::find(request.as_ref(), &transaction).await? {
            return find(&transaction.database, principal, ProjectId(first)).await;
        }
        let id = new.id.unwrap_or_else(|| ProjectId::new(transaction.now, random()));
        require_free(&transaction.database, principal, id).await?;
        let project = insert(&transaction, principal.organization, id, new).await?;
        Request::remember(request.as_ref(), &transaction, id.0).await?;
        transaction.commit().await?;
        Ok(project)
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
        let rows = lists::page(
            &self.connection_of(principal),
            within_reach(principal),
            project::Column::Id,
            page,
            |row| row.id,
        )
        .await?;
        Ok(rows.map(from_row))
    }

    /// Changes the given fields. Errors: `NOT_FOUND`, `BEYOND_OWN_SCOPE` for a key that is bound to
    /// an owner.
    pub async fn update_project(
        &self,
        principal: &Principal,
        id: ProjectId,
        change: ProjectChange,
    ) -> Result<Project> {
        let transaction = Transaction::begin(self, principal).await?;
        let before = find(&transaction.database, principal, id).await?;
        require_no_owner(principal)?;
        let mut after = before.clone();
        after.name = change.name.unwrap_or(after.name);
        after.schema_validation = change.schema_validation.unwrap_or(after.schema_validation);
        after.payload_retention = change.payload_retention.unwrap_or(after.payload_retention);
        if after == before {
            return Ok(before);
        }
        after.updated_at = transaction.now;
        let row = project::ActiveModel {
            id: Unchanged(id.0),
            name: Set(after.name.clone()),
            schema_validation: Set(i16::from(after.schema_validation as u8)),
            payload_retention_micros: Set(after.payload_retention.map(micros)),
            updated_at: Set(after.updated_at.0),
            ..Default::default()
        };
        project::Entity::update(row).exec(&transaction.database).await.map_err(unavailable)?;
        transaction
            .record(
                ChangeKind::Project,
                Some(id),
                id.0,
                Some(describe(&before)),
                Some(describe(&after)),
            )
            .await?;
        transaction.commit().await?;
        Ok(after)
    }

    /// Deletes a project. Nothing that belongs to it is found any longer. Errors: `NOT_FOUND`,
    /// `BEYOND_OWN_SCOPE` for a key that is bound to an owner.
    pub async fn delete_project(&self, principal: &Principal, id: ProjectId) -> Result<()> {
        let transaction = Transaction::begin(self, principal).await?;
        let before = find(&transaction.database, principal, id).await?;
        require_no_owner(principal)?;
        let row = project::ActiveModel {
            id: Unchanged(id.0),
            deleted_at: Set(Some(transaction.now.0)),
            ..Default::default()
        };
        project::Entity::update(row).exec(&transaction.database).await.map_err(unavailable)?;
        transaction
            .record(ChangeKind::Project, Some(id), id.0, Some(describe(&before)), None)
            .await?;
        transaction.commit().await
    }
}

/// Adds a project of an organization.
pub(super) async fn insert(
    transaction: &Transaction,
    organization: OrganizationId,
    id: ProjectId,
    new: NewProject,
) -> Result<Project> {
    let now = transaction.now;
    let NewProject { name, schema_validation, payload_retention, .. } = new;
    let project = Project {
        id,
        organization,
        name,
        schema_validation,
        payload_retention,
        created_at: now,
        updated_at: now,
    };
    let row = project::ActiveModel {
        id: Set(id.0),
        organization_id: Set(project.organization.0),
        name: Set(project.name.clone()),
        schema_validation: Set(i16::from(project.schema_validation as u8)),
        payload_retention_micros: Set(project.payload_retention.map(micros)),
        created_at: Set(now.0),
        updated_at: Set(now.0),
        deleted_at: Set(None),
    };
    project::Entity::insert(row)
        .exec_without_returning(&transaction.database)
        .await
        .map_err(exists(WHAT))?;
    transaction.record(ChangeKind::Project, Some(id), id.0, None, Some(describe(&project))).await?;
    Ok(project)
}

/// Refuses an id that a project has or had. Reveals nothing about projects of other organizations.
async fn require_free(
    database: &impl ConnectionTrait,
    principal: &Principal,
    id: ProjectId,
) -> Result<()> {
    match project::Entity::find_by_id(id.0).one(database).await.map_err(unavailable)? {
        Some(row) => Err(taken(WHAT, row.organization_id == principal.organization.0)),
        None => Ok(()),
    }
}

/// The project, if it exists and the principal reaches it. This is the check before anything that
/// belongs to a project.
pub(crate) async fn find(
    database: &impl ConnectionTrait,
    principal: &Principal,
    id: ProjectId,
) -> Result<Project> {
    let row = within_reach(principal)
        .filter(project::Column::Id.eq(id.0))
        .one(database)
        .await
        .map_err(unavailable)?;
    row.map(from_row).ok_or_else(|| Error::not_found(WHAT))
}

/// The project, for any caller. None if it does not exist or was deleted.
pub(crate) async fn load(
    database: &impl ConnectionTrait,
    id: ProjectId,
) -> Result<Option<Project>> {
    let existing = project::Entity::find_by_id(id.0).filter(project::Column::DeletedAt.is_null());
    Ok(existing.one(database).await.map_err(unavailable)?.map(from_row))
}

fn within_reach(principal: &Principal) -> Select<project::Entity> {
    let own = project::Entity::find()
        .filter(project::Column::OrganizationId.eq(principal.organization.0))
        .filter(project::Column::DeletedAt.is_null());
    match principal.project {
        Some(bound) => own.filter(project::Column::Id.eq(bound.0)),
        None => own,
    }
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

fn from_row(row: project::Model) -> Project {
    Project {
        id: ProjectId(row.id),
        organization: OrganizationId(row.organization_id),
        name: row.name,
        // The mode may be one that only a newer version knows.
        schema_validation: SchemaValidation::from_number(row.schema_validation.into())
            .unwrap_or_default(),
        payload_retention: row
            .payload_retention_micros
            .map(|micros| Duration::from_micros(micros.unsigned_abs())),
        created_at: Timestamp(row.created_at),
        updated_at: Timestamp(row.updated_at),
    }
}

fn micros(length: Duration) -> i64 {
    i64::try_from(length.as_micros()).unwrap_or(i64::MAX)
}

fn describe(project: &Project) -> Value {
    json!({
        "project_id": project.id.to_string(), "name": project.name,
        "schema_validation": project.schema_validation as u8,
        "payload_retention_micros": project.payload_retention.map(micros),
    })
}
