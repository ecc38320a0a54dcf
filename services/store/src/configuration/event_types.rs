//! Event types: the catalog of a project. Principals that are bound to an owner of endpoints may
//! read it. Deleted entries are removed; the change feed keeps their content, with a digest of the
//! schema instead of its text.

use std::collections::HashMap;

use outrider_model::{
    Error, EventType, EventTypeDefinition, EventTypeId, Page, PageRequest, Principal, ProjectId,
    Reason, Result, Timestamp, limits,
};
use ring::digest::{SHA256, digest};
use sea_orm::{
    ActiveValue::{Set, Unchanged},
    ColumnTrait, ConnectionTrait, EntityTrait, PaginatorTrait, QueryFilter, QuerySelect, Select,
    sea_query::Expr,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    entity::event_type::{self, Column, Entity},
    lists, projects,
    requests::Request,
    transaction::{Transaction, random},
};
use crate::{
    ChangeKind, Store,
    connection::error::{exists, malformed_row, unavailable},
};

const WHAT: &str = "event type";
const TABLE: &str = "event_types";

/// An event type to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEventType {
    pub event_type: EventType,
    pub description: String,
    /// The caller has checked that it compiles.
    pub schema: Option<String>,
    pub deprecated: bool,
}

/// A change of an event type. Absent fields stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventTypeChange {
    pub description: Option<String>,
    /// `Some(None)` removes it.
    pub schema: Option<Option<String>>,
    pub deprecated: Option<bool>,
}

/// What publishing needs to know about a project's event types. Schemas are loaded separately
/// ([`crate::Directory::event_type_schema`]).
#[derive(Debug, Default)]
pub struct Catalogue(HashMap<String, CatalogueEntry>);

/// What publishing needs to know about an event type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatalogueEntry {
    pub id: EventTypeId,
    /// Together with the id, identifies a version of the entry.
    pub updated_at: Timestamp,
    pub deprecated: bool,
    pub has_schema: bool,
}

impl Catalogue {
    /// The entry of a type. None if it is not in the catalog.
    #[must_use]
    pub fn get(&self, event_type: &str) -> Option<CatalogueEntry> {
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
        let content = json!({
            "event_type": new.event_type.as_str(), "description": new.description,
            "schema": new.schema, "deprecated": new.deprecated,
        });
        let request = Request::new(project.0, request_id, "create_event_type", &content);
        let transaction = Transaction::begin(self, principal).await?;
        let database = &transaction.database;
        projects::find(database, principal, project).await?;
        projects::require_no_owner(principal)?;
        if let Some(first) = Request::find(request.as_ref(), &transaction).await? {
            return one(database, of_project(project).filter(Column::Id.eq(first))).await;
        }
        if named(project, &new.event_type).one(database).await.map_err(unavailable)?.is_some() {
            return Err(Error::new(
                Reason::AlreadyExists,
                "the event type is already in the catalog",
            ));
        }
        if of_project(project).count(database).await.map_err(unavailable)?
            >= u64::from(limits::EVENT_TYPES)
        {
            let message = format!(
                "the catalog is full: at most {} event types are allowed",
                limits::EVENT_TYPES
            );
            return Err(Error::new(Reason::FailedPrecondition, message));
        }
        let now = transaction.now;
        let NewEventType { event_type, description, schema, deprecated } = new;
        let id = EventTypeId::new(now, random());
        let entry = EventTypeDefinition {
            id,
            project,
            event_type,
            description,
            schema,
            deprecated,
            created_at: now,
            updated_at: now,
        };
        Entity::insert(to_row(&entry))
            .exec_without_returning(database)
            .await
            .map_err(exists(WHAT))?;
        transaction
            .record(ChangeKind::EventType, Some(project), id.0, None, Some(describe(&entry)))
            .await?;
        Request::remember(request.as_ref(), &transaction, id.0).await?;
        transaction.commit().await?;
        Ok(entry)
    }

    /// An event type. Errors: `NOT_FOUND`.
    pub async fn get_event_type(
        &self,
        principal: &Principal,
        project: ProjectId,
        event_type: &EventType,
    ) -> Result<EventTypeDefinition> {
        let database = self.reach(principal, project).await?;
        one(&database, named(project, event_type)).await
    }

    /// The event types of a project, without their schemas. Errors: `NOT_FOUND` for the project.
    pub async fn list_event_types(
        &self,
        principal: &Principal,
        project: ProjectId,
        page: PageRequest,
    ) -> Result<Page<EventTypeDefinition>> {
        let database = self.reach(principal, project).await?;
        let small = of_project(project)
            .select_only()
            .columns([Column::Id, Column::ProjectId, Column::EventType, Column::Description])
            .column_as(Expr::cust("NULL"), "schema")
            .columns([Column::Deprecated, Column::CreatedAt, Column::UpdatedAt]);
        let rows = lists::page(&database, small, Column::Id, page, |row| row.id).await?;
        lists::convert(rows, from_row)
    }

    /// Changes the given fields. Errors: `NOT_FOUND`, `BEYOND_OWN_SCOPE` for a key that is bound to
    /// an owner.
    pub async fn update_event_type(
        &self,
        principal: &Principal,
        project: ProjectId,
        event_type: &EventType,
        change: EventTypeChange,
    ) -> Result<EventTypeDefinition> {
        let (transaction, before) = self.begin_change(principal, project, event_type).await?;
        let mut after = before.clone();
        after.description = change.description.unwrap_or(after.description);
        after.schema = change.schema.unwrap_or(after.schema);
        after.deprecated = change.deprecated.unwrap_or(after.deprecated);
        if after == before {
            return Ok(before);
        }
        // Two versions never have the same time, however fast they follow each other.
        after.updated_at = transaction.now.max(Timestamp(before.updated_at.0 + 1));
        let mut row = to_row(&after);
        row.id = Unchanged(after.id.0);
        Entity::update(row).exec(&transaction.database).await.map_err(unavailable)?;
        let (old, new) = (describe(&before), describe(&after));
        transaction
            .record(ChangeKind::EventType, Some(project), after.id.0, Some(old), Some(new))
            .await?;
        transaction.commit().await?;
        Ok(after)
    }

    /// Removes a type from the catalog. Errors: `NOT_FOUND`, `BEYOND_OWN_SCOPE` for a key that is
    /// bound to an owner.
    pub async fn delete_event_type(
        &self,
        principal: &Principal,
        project: ProjectId,
        event_type: &EventType,
    ) -> Result<()> {
        let (transaction, before) = self.begin_change(principal, project, event_type).await?;
        Entity::delete_by_id(before.id.0).exec(&transaction.database).await.map_err(unavailable)?;
        transaction
            .record(
                ChangeKind::EventType,
                Some(project),
                before.id.0,
                Some(describe(&before)),
                None,
            )
            .await?;
        transaction.commit().await
    }

    async fn begin_change(
        &self,
        principal: &Principal,
        project: ProjectId,
        event_type: &EventType,
    ) -> Result<(Transaction, EventTypeDefinition)> {
        let transaction = Transaction::begin(self, principal).await?;
        projects::find(&transaction.database, principal, project).await?;
        projects::require_no_owner(principal)?;
        let before = one(&transaction.database, named(project, event_type)).await?;
        Ok((transaction, before))
    }
}

/// The catalog of a project.
pub(super) async fn load(database: &impl ConnectionTrait, project: ProjectId) -> Result<Catalogue> {
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
        (name, CatalogueEntry { id, updated_at, deprecated, has_schema })
    };
    Ok(Catalogue(rows.into_iter().map(entry).collect()))
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

fn named(project: ProjectId, event_type: &EventType) -> Select<Entity> {
    of_project(project).filter(Column::EventType.eq(event_type.as_str()))
}

async fn one(
    database: &impl ConnectionTrait,
    select: Select<Entity>,
) -> Result<EventTypeDefinition> {
    let row = select.one(database).await.map_err(unavailable)?;
    from_row(row.ok_or_else(|| Error::not_found(WHAT))?)
}

fn to_row(entry: &EventTypeDefinition) -> event_type::ActiveModel {
    event_type::ActiveModel {
        id: Set(entry.id.0),
        project_id: Set(entry.project.0),
        event_type: Set(entry.event_type.to_string()),
        description: Set(entry.description.clone()),
        schema: Set(entry.schema.clone()),
        deprecated: Set(entry.deprecated.into()),
        created_at: Set(entry.created_at.0),
        updated_at: Set(entry.updated_at.0),
    }
}

fn from_row(row: event_type::Model) -> Result<EventTypeDefinition> {
    Ok(EventTypeDefinition {
        id: EventTypeId(row.id),
        project: ProjectId(row.project_id),
        event_type: row.event_type.parse().map_err(|_| malformed_row(TABLE, "event_type"))?,
        description: row.description,
        schema: row.schema,
        deprecated: row.deprecated != 0,
        created_at: Timestamp(row.created_at),
        updated_at: Timestamp(row.updated_at),
    })
}

fn describe(entry: &EventTypeDefinition) -> Value {
    let hex = |text: &String| {
        digest(&SHA256, text.as_bytes())
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    json!({
        "event_type": entry.event_type.as_str(),
        "description": entry.description,
        "schema_sha256": entry.schema.as_ref().map(hex),
        "deprecated": entry.deprecated,
    })
}
