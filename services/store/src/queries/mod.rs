//! What callers ask of the ledger: events, deliveries and attempts, one by one and in pages, and a retry by hand.
//!
//! Lists are newest first by the time in their ids, that is by the event's time, or the replay's. Every page is a range of an index:
//!
//! | list | filter | index |
//! |---|---|---|
//! | events | none or times | (project, id) |
//! | events | type | (project, type, id) |
//! | deliveries | none, times, delivered | (project, id) |
//! | deliveries | endpoint | (endpoint, id) |
//! | deliveries | type | (project, type, id) |
//! | deliveries | failed, cancelled | (project, status, id), partial |
//! | deliveries | pending | as above, without the one by type: (project, id) or (endpoint, id) |
//! | deliveries | event | the event's millisecond in (project, id), and its replays by their ids |
//! | attempts | none, times, succeeded | (project, id) |
//! | attempts | endpoint | (endpoint, id) |
//! | attempts | outcome | (project, outcome, id), partial |
//! | attempts | delivery | the delivery's millisecond in (project, id) |
//!
//! Of several filters one gives the index and the others drop rows on the way, so that a rare combination within a frequent one (an
//! endpoint's few failures among millions of its deliveries) reads as many rows as lie between; the times bound it. The same holds for
//! principals that are bound to an owner, whose endpoints are such a filter.

mod attempts;
mod deliveries;
mod entity;
mod events;
mod retry;
#[cfg(test)]
mod tests;

use outrider_model::{Page, PageRequest, Principal, ProjectId, Timestamp, id::uuid_bound, limits, page::Cursor};
use sea_orm::{
    ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait, Select, sea_query::SimpleExpr,
};
use uuid::Uuid;

use crate::entity::endpoint;

pub use attempts::AttemptFilter;
pub use deliveries::DeliveryFilter;
pub use events::EventFilter;

fn clamp(page: PageRequest) -> PageRequest {
    PageRequest { size: page.size.clamp(1, limits::PAGE_SIZE.1), ..page }
}

/// The page's rows and one more, which tells that there are more; in the order in which the page is walked.
fn newest_first<E: EntityTrait>(select: Select<E>, id: E::Column, page: PageRequest) -> Select<E> {
    let select = match page.from {
        None => select.order_by_desc(id),
        Some(Cursor::After(after)) => select.filter(id.lt(after)).order_by_desc(id),
        Some(Cursor::Before(before)) => select.filter(id.gt(before)).order_by_asc(id),
    };
    select.limit(u64::from(page.size) + 1)
}

/// From one time until before another, to the millisecond, as bounds of the id.
fn within<C: ColumnTrait>(id: C, start: Option<Timestamp>, end: Option<Timestamp>) -> Condition {
    Condition::all()
        .add_option(start.map(|start| id.gte(uuid_bound(start))))
        .add_option(end.map(|end| id.lt(uuid_bound(end))))
}

/// The millisecond that an id has in common with the ids derived from it.
fn millisecond_of<C: ColumnTrait>(id: C, at: Timestamp) -> Condition {
    within(id, Some(at), Some(Timestamp(at.0 + 1_000)))
}

/// For a principal that is bound to an owner: only of that owner's endpoints, deleted ones included.
fn own_endpoints<C: ColumnTrait>(endpoint_id: C, principal: &Principal, project: ProjectId) -> Option<SimpleExpr> {
    let owner = principal.owner.as_deref()?;
    let own = endpoint::Entity::find()
        .select_only()
        .column(endpoint::Column::Id)
        .filter(endpoint::Column::ProjectId.eq(project.0))
        .filter(endpoint::Column::Owner.eq(owner));
    Some(endpoint_id.in_subquery(own.into_query()))
}

/// The list with its last id repeated up to a power of two: so that few statements, not one for each length, are prepared.
fn padded(mut ids: Vec<Uuid>) -> Vec<Uuid> {
    if let Some(last) = ids.last().copied() {
        ids.resize(ids.len().next_power_of_two(), last);
    }
    ids
}

/// A page of converted rows, or the first error.
fn page_of<R, T>(
    page: PageRequest,
    rows: Vec<R>,
    convert: impl FnMut(R) -> outrider_model::Result<T>,
    id: impl Fn(&T) -> Uuid,
) -> outrider_model::Result<Page<T>> {
    let items: Vec<T> = rows.into_iter().map(convert).collect::<Result<_, _>>()?;
    Ok(Page::from_rows(page, items, id))
}
