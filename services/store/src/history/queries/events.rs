//! Queries of events.

use bytes::Bytes;
use outrider_model::{
    Error, Event, EventId, Page, PageRequest, Principal, ProjectId, Result, Timestamp,
};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, Select, Statement};

use super::{
    deliveries::DeliveryFilter,
    ids::IdRange,
    pages::{clamp, page_of},
    ranges::range,
};
use crate::{
    Store,
    connection::error::{malformed_row, unavailable},
    history::{
        codec::{count, map_from_json, origin_from_json, trace_from_json},
        entity::event,
    },
};

const WHAT: &str = "event";
const TABLE: &str = "events";
const PAYLOAD: &str = "SELECT payload, payload_erased_at FROM events WHERE id = $1";

/// A filter for events of a project. All given fields must match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventFilter {
    pub event_type: Option<String>,
    /// Accepted at this time or later, to the millisecond.
    pub start: Option<Timestamp>,
    /// Accepted before this time, to the millisecond.
    pub end: Option<Timestamp>,
}

impl Store {
    /// An event and its payload. A principal that is bound to an owner sees it if it was routed to
    /// an endpoint of that owner. Errors: `NOT_FOUND`.
    pub async fn get_event(
        &self,
        principal: &Principal,
        project: ProjectId,
        id: EventId,
    ) -> Result<(Event, Bytes)> {
        let database = self.reach(principal, project).await?;
        let mut event =
            find(&database, project, id).await?.ok_or_else(|| Error::not_found(WHAT))?;
        if principal.owner.is_some() {
            let filter = DeliveryFilter { event: Some(id), ..DeliveryFilter::default() };
            let own = self
                .list_deliveries(principal, project, &filter, PageRequest { size: 1, from: None })
                .await?;
            if own.items.is_empty() {
                return Err(Error::not_found(WHAT));
            }
        }
        let payload = Statement::from_sql_and_values(self.backend().into(), PAYLOAD, [id.0.into()]);
        let row = database
            .query_one_raw(payload)
            .await
            .map_err(unavailable)?
            .ok_or_else(|| Error::not_found(WHAT))?;
        let payload: Vec<u8> = row.try_get_by_index(0).map_err(unavailable)?;
        // The payload may have been erased since the first query.
        event.payload_erased_at =
            row.try_get_by_index::<Option<i64>>(1).map_err(unavailable)?.map(Timestamp);
        Ok((event, payload.into()))
    }

    /// Checks that the principal may read all events of a project, as a list or as a tail. Errors:
    /// `NOT_FOUND` for the project, and for a principal that is bound to an owner, which must not
    /// see the events of others.
    pub async fn reads_all_events(&self, principal: &Principal, project: ProjectId) -> Result<()> {
        self.within(self.reach(principal, project)).await?;
        if principal.owner.is_some() { Err(Error::not_found("list of events")) } else { Ok(()) }
    }

    /// Events of a project, newest first. A principal that is bound to an owner has no list of
    /// events, because these concern others too: it lists its deliveries. Errors: `NOT_FOUND` for
    /// the project, or for that list.
    pub async fn list_events(
        &self,
        principal: &Principal,
        project: ProjectId,
        filter: &EventFilter,
        page: PageRequest,
    ) -> Result<Page<Event>> {
        self.reads_all_events(principal, project).await?;
        let page = clamp(page);
        let rows = select(project, filter, page)
            .all(&self.connection_within(principal, project))
            .await
            .map_err(unavailable)?;
        page_of(page, rows, from_row, |event| event.id.0)
    }
}

/// The event, if it belongs to the project.
pub(crate) async fn find(
    database: &impl ConnectionTrait,
    project: ProjectId,
    id: EventId,
) -> Result<Option<Event>> {
    let row = event::Entity::find_by_id(id.0).filter(event::Column::ProjectId.eq(project.0));
    row.one(database).await.map_err(unavailable)?.map(from_row).transpose()
}

pub(super) fn select(
    project: ProjectId,
    filter: &EventFilter,
    page: PageRequest,
) -> Select<event::Entity> {
    let mut prefix = vec![(event::Column::ProjectId, project.0.into())];
    prefix.extend(
        filter
            .event_type
            .as_deref()
            .map(|event_type| (event::Column::EventType, event_type.into())),
    );
    let ids = IdRange::ALL.during(filter.start, filter.end);
    range(event::Entity::find(), &prefix, event::Column::Id, ids, page)
}

pub(crate) fn from_row(row: event::Model) -> Result<Event> {
    Ok(Event {
        id: EventId(row.id),
        project: ProjectId(row.project_id),
        event_type: row.event_type,
        content_type: row.content_type,
        payload_size: count(row.payload_size),
        idempotency_key: row.idempotency_key,
        headers: map_from_json(&row.headers).map_err(|_| malformed_row(TABLE, "headers"))?,
        metadata: map_from_json(&row.metadata).map_err(|_| malformed_row(TABLE, "metadata"))?,
        ordering_key: row.ordering_key,
        deliver_at: row.deliver_at.map(Timestamp),
        delivery_count: count(row.delivery_count),
        origin: origin_from_json(&row.origin).ok_or_else(|| malformed_row(TABLE, "origin"))?,
        trace: trace_from_json(&row.origin),
        created_at: Timestamp(row.created_at),
        payload_erased_at: row.payload_erased_at.map(Timestamp),
    })
}
