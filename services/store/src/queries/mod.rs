//! What callers ask of the ledger: events, deliveries and attempts, one by one and in pages, and a
//! retry by hand.
//!
//! Lists are newest first: events and deliveries by the time in their ids, which is the event's
//! time or the replay's, and attempts by their start. Every page is a range of an index
//! ([`range`]), which the filters choose:
//!
//! | list | filter | index |
//! |---|---|---|
//! | events | type, else none | (project, type, id), (project, id) |
//! | deliveries, ended | endpoint, not delivered | (endpoint, status, id) |
//! | | endpoint | (endpoint, id) |
//! | | not delivered | (project, status, id) |
//! | | type, else none | (project, type, id), (project, id) |
//! | deliveries, pending | endpoint, else none | (endpoint, id), (project, id) |
//! | attempts | endpoint, not succeeded | (endpoint, outcome, start, id) |
//! | | endpoint | (endpoint, start, id) |
//! | | not succeeded, else none | (project, outcome, start, id), (project, start, id) |
//! | | delivery | (id) |
//!
//! Times narrow each of them, and so does an event or a delivery: to its millisecond, which the ids
//! derived from it share (replays of an event have another time and are looked up by their ids).
//! The few attempts of a delivery are sorted by number. Further filters drop rows on the way: a
//! type of an endpoint, a type among what is pending or failed, what was delivered where nearly all
//! failed. Such a page may read as many rows as lie between those wanted; the times bound it. The
//! same holds for principals that are bound to an owner, whose endpoints are such a filter.

mod attempts;
mod by_id;
mod deliveries;
mod entity;
mod erase;
mod events;
mod retry;
#[cfg(test)]
pub(crate) mod tests;

use std::cmp::{max, min};

use outrider_model::{
    Page, PageRequest, Principal, ProjectId, Timestamp,
    id::uuid_bound,
    limits,
    page::{Cursor, Place},
};
use sea_orm::{
    ColumnTrait, Condition, EntityTrait, Order, QueryFilter, QueryOrder, QuerySelect, QueryTrait,
    Select, Value,
    sea_query::{Expr, ExprTrait, SimpleExpr},
};
use uuid::Uuid;

use crate::entity::endpoint;

pub use attempts::AttemptFilter;
pub use deliveries::DeliveryFilter;
pub use erase::Erased;
pub use events::EventFilter;

fn clamp<P>(page: PageRequest<P>) -> PageRequest<P> {
    PageRequest { size: page.size.clamp(1, limits::PAGE_SIZE.1), ..page }
}

/// Ids from one on until before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct IdRange {
    from: Uuid,
    until: Uuid,
}

impl IdRange {
    const ALL: Self = Self { from: Uuid::nil(), until: Uuid::max() };

    /// From the lowest to the highest of some ids; none for none.
    fn spanning(ids: &[Uuid]) -> Option<Self> {
        let (from, last) = (ids.iter().min()?, ids.iter().max()?);
        Some(Self { from: *from, until: Uuid::from_u128(last.as_u128().saturating_add(1)) })
    }

    /// That an id lies within: it leaves out partitions.
    fn condition<C: ColumnTrait>(self, id: C) -> SimpleExpr {
        id.gte(self.from).and(id.lt(self.until))
    }

    /// Those of a time, to the millisecond.
    fn during(self, start: Option<Timestamp>, end: Option<Timestamp>) -> Self {
        let from = start.map_or(self.from, |start| max(self.from, uuid_bound(start)));
        let until = end.map_or(self.until, |end| min(self.until, uuid_bound(end)));
        Self { from, until }
    }

    /// Those that share the time of an id.
    fn millisecond(self, at: Timestamp) -> Self {
        self.during(Some(at), Some(Timestamp(at.0.saturating_add(1_000))))
    }

    /// Those of both.
    fn within(self, other: Self) -> Self {
        Self { from: max(self.from, other.from), until: min(self.until, other.until) }
    }

    /// Those that a page may hold.
    fn of_page(self, page: PageRequest) -> Self {
        match page.from {
            None => self,
            Some(Cursor::After(id)) => Self { until: min(self.until, id), ..self },
            Some(Cursor::Before(id)) => Self {
                from: max(self.from, Uuid::from_u128(id.as_u128().saturating_add(1))),
                ..self
            },
        }
    }
}

/// The page's rows and one more, which tells that there are more, in the order in which the page is
/// walked, as a range of the index over the columns of `prefix` (equal to these values) and the id.
/// Written as a comparison of rows in the order of the whole index, because no other index can
/// serve that. Given plain equality, the planner may walk all rows by id and drop those of other
/// projects, on the assumption that the wanted ones are spread evenly, which those of a project
/// that went quiet are not. That the id is compared once more leaves out partitions.
fn range<E: EntityTrait>(
    select: Select<E>,
    prefix: &[(E::Column, Value)],
    id: E::Column,
    ids: IdRange,
    page: PageRequest,
) -> Select<E> {
    let select = within(select, prefix, id, ids.of_page(page));
    let order = if matches!(page.from, Some(Cursor::Before(_))) { Order::Asc } else { Order::Desc };
    let select =
        prefix.iter().fold(select, |select, (column, _)| select.order_by(*column, order.clone()));
    select.order_by(id, order).limit(u64::from(page.size) + 1)
}

/// The rows of such a range, as many as there are.
fn within<E: EntityTrait>(
    select: Select<E>,
    prefix: &[(E::Column, Value)],
    id: E::Column,
    ids: IdRange,
) -> Select<E> {
    select.filter(bounds(prefix, id, ids))
}

/// That a row lies in such a range.
fn bounds<C: ColumnTrait>(prefix: &[(C, Value)], id: C, ids: IdRange) -> Condition {
    between(prefix, &[id], [vec![ids.from.into()], vec![ids.until.into()]]).add(ids.condition(id))
}

/// That a row has these values in the columns of `prefix`, and in those of `keys` values from the
/// first ones until before the last.
fn between<C: ColumnTrait>(
    prefix: &[(C, Value)],
    keys: &[C],
    [from, until]: [Vec<Value>; 2],
) -> Condition {
    let columns = || {
        Expr::tuple(
            prefix.iter().map(|(column, _)| column).chain(keys).map(|column| column.into_expr()),
        )
    };
    let values = |keys: Vec<Value>| {
        Expr::tuple(prefix.iter().map(|(_, value)| value.clone()).chain(keys).map(Expr::val))
    };
    Condition::all().add(columns().gte(values(from))).add(columns().lt(values(until)))
}

/// For a range over something within the project: that it is of this project. Written so that
/// SQLite does not take it for a better reason to choose an index than the range is.
fn of_project<C: ColumnTrait>(project_id: C, project: ProjectId) -> SimpleExpr {
    project_id.ne(project.0).not()
}

/// For a principal that is bound to an owner: only of that owner's endpoints, deleted ones
/// included.
fn own_endpoints<C: ColumnTrait>(
    endpoint_id: C,
    principal: &Principal,
    project: ProjectId,
) -> Option<SimpleExpr> {
    let owner = principal.owner.as_deref()?;
    let own = endpoint::Entity::find()
        .select_only()
        .column(endpoint::Column::Id)
        .filter(endpoint::Column::ProjectId.eq(project.0))
        .filter(endpoint::Column::Owner.eq(owner));
    Some(endpoint_id.in_subquery(own.into_query()))
}

/// The list with its last id repeated up to a power of two: so that few statements, not one for
/// each length, are prepared.
fn padded(mut ids: Vec<Uuid>) -> Vec<Uuid> {
    if let Some(last) = ids.last().copied() {
        ids.resize(ids.len().next_power_of_two(), last);
    }
    ids
}

/// A page of converted rows, or the first error.
fn page_of<R, T, P: Place>(
    page: PageRequest<P>,
    rows: Vec<R>,
    convert: impl FnMut(R) -> outrider_model::Result<T>,
    place: impl Fn(&T) -> P,
) -> outrider_model::Result<Page<T, P>> {
    let items: Vec<T> = rows.into_iter().map(convert).collect::<Result<_, _>>()?;
    Ok(Page::from_rows(page, items, place))
}
