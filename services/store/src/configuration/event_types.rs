//! Event types: the catalog of a project. Principals that are bound to an owner of endpoints may
//! read it. Deleted entries are removed; the change feed keeps their content, with a digest of the
//! schema instead of its text.

use std::collections::HashMap;

use outrider_model::{
    Error, EventType, EventTypeDefinition, EventTypeFixed, EventTypeId, EventTypeSpec, Meta, Noun,
    Page, PageRequest, Principal, ProjectId, Reason, Result, Timestamp, limits,
};
use ring::digest::{SHA256, digest};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, EntityTrait, PaginatorTrait,
    QueryFilter, QuerySelect, Select, sea_query::Expr,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    entity::event_type::{ActiveModel, Column, Entity, Model},
    projects,
    resource::{self, New, Resource, Values},
    transaction::Transaction,
};
use crate::{
    ChangeKind, Store,
    cipher::MasterKeys,
    connection::error::{malformed_row, unavailable},
};

const TABLE: &str = "event_types";

/// An event type to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEventType {
    pub event_type: EventType,
    /// The caller has checked that the schema compiles.
    pub spec: EventTypeSpec,
}

/// What publishing needs to know about a project's event types. Schemas are loaded separately
/// ([`crate::Directory::event_type_schema`]).
#[derive(Debug, Default)]
pub struct Catalog(HashMap<String, CatalogEntry>);

/// What publishing needs to know about an event type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatalogEntry {
    pub id: EventTypeId,
    /// Together with the id, identifies a version of the entry.
    pub updated_at: Timestamp,
    pub deprecated: bool,
    pub has_schema: bool,
}

impl Catalog {
    /// The entry of a type. None if it is not in the catalog.
    #[must_use]
    pub fn get(&self, event_type: &str) -> Option<CatalogEntry> {
        self.0.get(event_type).copied()
    }
}

impl Store {
    /// Adds a type to a catalog. Errors: `NOT_FOUND` for the project, `ALREADY_EXISTS`,
    /// `IDEMPOTENCY_CONFLICT`, `FAILED_PRECONDITION` if the catalog is full
    /// ([`limits::EVENT_TYPES`]), `BEYOND_OWN_SCOPE` for a key that is bound to an owner.
    pub async fn create_event_type(
        &self,
        principal: &Principal,
        project: ProjectId,
        new: NewEventType,
        request_id: Option<&str>,
    ) -> Result<EventTypeDefinition> {
        let NewEventType { event_type, spec } = new;
        let content = json!({
            "event_type": event_type.as_str(), "description": spec.description,
            "schema": spec.schema, "deprecated": spec.deprecated,
        });
        let fixed = EventTypeFixed { project, event_type };
        let new = New { id: None, fixed, spec, secret: () };
        resource::create(self, principal, project, new, &content, request_id)
            .await
            .map(|created| created.noun)
    }

    /// An event type. Errors: `NOT_FOUND`.
    pub async fn get_event_type(
        &self,
        principal: &Principal,
        project: ProjectId,
        event_type: &EventType,
    ) -> Result<EventTypeDefinition> {
        resource::get(self, principal, project, named(event_type), Values::Masked).await
    }

    /// The event types of a project, without their schemas. Errors: `NOT_FOUND` for the project.
    pub async fn list_event_types(
        &self,
        principal: &Principal,
        project: ProjectId,
        page: PageRequest,
    ) -> Result<Page<EventTypeDefinition>> {
        resource::list(self, principal, project, Condition::all(), page).await
    }

    /// Changes the spec. Errors: `NOT_FOUND`, `BEYOND_OWN_SCOPE` for a key that is bound to an
    /// owner.
    pub async fn update_event_type(
        &self,
        principal: &Principal,
        project: ProjectId,
        event_type: &EventType,
        change: impl FnOnce(&mut EventTypeSpec) + Send,
    ) -> Result<EventTypeDefinition> {
        resource::update(self, principal, project, named(event_type), change).await
    }

    /// Removes a type from the catalog. Errors: `NOT_FOUND`, `BEYOND_OWN_SCOPE` for a key that is
    /// bound to an owner.
    pub async fn delete_event_type(
        &self,
        principal: &Principal,
        project: ProjectId,
        event_type: &EventType,
    ) -> Result<()> {
        resource::delete::<EventTypeSpec>(self, principal, project, named(event_type)).await
    }
}

impl Resource for EventTypeSpec {
    const WHAT: &'static str = "event type";
    const KIND: ChangeKind = ChangeKind::EventType;
    type Entity = Entity;
    const ID: Column = Column::Id;
    type Parent = ProjectId;
    type Secret = ();

    fn from_row(row: Model, _: Values<'_>) -> Result<EventTypeDefinition> {
        let event_type = row.event_type.parse().map_err(|_| malformed_row(TABLE, "event_type"))?;
        let meta = Meta {
            id: EventTypeId(row.id),
            fixed: EventTypeFixed { project: ProjectId(row.project_id), event_type },
            created_at: Timestamp(row.created_at),
            updated_at: Timestamp(row.updated_at),
        };
        let spec = Self {
            description: row.description,
            schema: row.schema,
            deprecated: row.deprecated != 0,
        };
        Ok(Noun { meta, spec })
    }

    fn to_row(entry: &EventTypeDefinition, _: &MasterKeys) -> Result<ActiveModel> {
        Ok(ActiveModel {
            id: Set(entry.id.0),
            project_id: Set(entry.fixed.project.0),
            event_type: Set(entry.fixed.event_type.to_string()),
            description: Set(entry.spec.description.clone()),
            schema: Set(entry.spec.schema.clone()),
            deprecated: Set(entry.spec.deprecated.into()),
            created_at: Set(entry.created_at.0),
            updated_at: Set(entry.updated_at.0),
        })
    }

    /// Without schemas.
    fn listed(all: Select<Entity>) -> Select<Entity> {
        all.select_only()
            .columns([Column::Id, Column::ProjectId, Column::EventType, Column::Description])
            .column_as(Expr::cust("NULL"), "schema")
            .columns([Column::Deprecated, Column::CreatedAt, Column::UpdatedAt])
    }

    fn within_reach(_: &Principal, project: ProjectId) -> Select<Entity> {
        of_project(project)
    }

    fn permit(principal: &Principal, _: Option<&EventTypeDefinition>) -> Result<()> {
        projects::require_no_owner(principal)
    }

    async fn admit(
        transaction: &Transaction<'_>,
        _: &Principal,
        entry: &EventTypeDefinition,
    ) -> Result<()> {
        let database = &transaction.database;
        let EventTypeFixed { project, event_type } = &entry.fixed;
        let of_project = || of_project(*project);
        let same_name = of_project().filter(named(event_type)).one(database);
        if same_name.await.map_err(unavailable)?.is_some() {
            return Err(Error::new(
                Reason::AlreadyExists,
                "the event type is already in the catalog",
            ));
        }
        if of_project().count(database).await.map_err(unavailable)?
            >= u64::from(limits::EVENT_TYPES)
        {
            let message = format!(
                "the catalog is full: at most {} event types are allowed",
                limits::EVENT_TYPES
            );
            return Err(Error::new(Reason::FailedPrecondition, message));
        }
        Ok(())
    }

    fn project(entry: &EventTypeDefinition) -> Option<ProjectId> {
        Some(entry.fixed.project)
    }

    /// With a digest of the schema instead of its text.
    fn describe(entry: &EventTypeDefinition) -> Value {
        let hex = |text: &String| {
            digest(&SHA256, text.as_bytes())
                .as_ref()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        json!({
            "event_type": entry.fixed.event_type.as_str(),
            "description": entry.spec.description,
            "schema_sha256": entry.spec.schema.as_ref().map(hex),
            "deprecated": entry.spec.deprecated,
        })
    }
}

/// The catalog of a project.
pub(super) async fn load(database: &impl ConnectionTrait, project: ProjectId) -> Result<Catalog> {
    let rows: Vec<(Uuid, String, i16, i64, bool)> = of_project(project)
        .select_only()
        .columns([Column::Id, Column::EventType, Column::Deprecated, Column::UpdatedAt])
        .column_as(Column::Schema.is_not_null(), "has_schema")
        .into_tuple()
        .all(database)
        .await
        .map_err(unavailable)?;
    let entry = |(id, name, deprecated, updated_at, has_schema)| {
        let (id, updated_at, deprecated) =
            (EventTypeId(id), Timestamp(updated_at), deprecated != 0);
        (name, CatalogEntry { id, updated_at, deprecated, has_schema })
    };
    Ok(Catalog(rows.into_iter().map(entry).collect()))
}

/// The text of an entry's schema. None if there is no such entry, or it has none.
pub(super) async fn load_schema(
    database: &impl ConnectionTrait,
    id: EventTypeId,
) -> Result<Option<String>> {
    let schema = Entity::find_by_id(id.0).select_only().column(Column::Schema);
    Ok(schema.into_tuple::<Option<String>>().one(database).await.map_err(unavailable)?.flatten())
}

fn of_project(project: ProjectId) -> Select<Entity> {
    Entity::find().filter(Column::ProjectId.eq(project.0))
}

fn named(event_type: &EventType) -> Expr {
    Column::EventType.eq(event_type.as_str())
}
