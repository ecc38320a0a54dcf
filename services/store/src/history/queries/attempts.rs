//! Queries of attempts.

use std::{
    cmp::{max_by_key, min_by_key},
    time::Duration,
};

use outrider_model::{
    Attempt, AttemptId, AttemptOutcome, DeliveryId, EndpointId, Error, EventId, Page, PageRequest,
    Principal, ProjectId, Result, Timestamp,
    page::{AttemptPosition, Cursor},
};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, Order, QueryFilter, QueryOrder,
    QuerySelect, Select, Statement, Value, sea_query::Expr,
};
use uuid::Uuid;

use super::{
    ids::IdRange,
    pages::{clamp, page_of},
    ranges::{between, of_project, own_endpoints},
};
use crate::{
    Store,
    connection::error::{malformed_row, unavailable},
    history::{
        codec::{count, pairs_from_json, status_code},
        entity::attempt::{self, Column},
    },
};

const WHAT: &str = "attempt";
const TABLE: &str = "attempts";
/// The maximum time by which an attempt may seem to have started before its event was accepted.
/// Their times come from different processes.
const SKEW: Duration = Duration::from_secs(3600);
const FIRST: AttemptPosition =
    AttemptPosition { number: 0, started_at: Timestamp(i64::MIN), id: Uuid::nil() };
const LAST: AttemptPosition =
    AttemptPosition { number: u32::MAX, started_at: Timestamp(i64::MAX), id: Uuid::max() };
const ANSWER: &str = "SELECT response_headers, response_body FROM attempts WHERE id = $1";

/// A filter for attempts of a project. All given fields must match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AttemptFilter {
    pub delivery: Option<DeliveryId>,
    pub endpoint: Option<EndpointId>,
    pub outcome: Option<AttemptOutcome>,
    /// Started at this time or later.
    pub start: Option<Timestamp>,
    /// Started before this time.
    pub end: Option<Timestamp>,
}

impl Store {
    /// An attempt with the answer's headers and body. A principal that is bound to an owner sees
    /// only attempts at that owner's endpoints. Errors: `NOT_FOUND`.
    pub async fn get_attempt(
        &self,
        principal: &Principal,
        project: ProjectId,
        id: AttemptId,
    ) -> Result<Attempt> {
        let database = self.reach(principal, project).await?;
        let reach = Condition::all()
            .add(Column::ProjectId.eq(project.0))
            .add_option(own_endpoints(Column::EndpointId, principal, project));
        let row = attempt::Entity::find_by_id(id.0)
            .filter(reach)
            .one(&database)
            .await
            .map_err(unavailable)?;
        let mut attempt = from_row(row.ok_or_else(|| Error::not_found(WHAT))?)?;
        let answer = Statement::from_sql_and_values(self.backend().into(), ANSWER, [id.0.into()]);
        let row = database
            .query_one_raw(answer)
            .await
            .map_err(unavailable)?
            .ok_or_else(|| Error::not_found(WHAT))?;
        let headers: String = row.try_get_by_index(0).map_err(unavailable)?;
        attempt.response_headers =
            pairs_from_json(&headers).map_err(|_| malformed_row(TABLE, "response_headers"))?;
        attempt.response_body = row.try_get_by_index(1).map_err(unavailable)?;
        Ok(attempt)
    }

    /// Attempts of a project by their start, or of a delivery by their number. Newest first,
    /// without the answers' headers and bodies. Errors: `NOT_FOUND` for the project.
    pub async fn list_attempts(
        &self,
        principal: &Principal,
        project: ProjectId,
        filter: &AttemptFilter,
        page: PageRequest<AttemptPosition>,
    ) -> Result<Page<Attempt, AttemptPosition>> {
        let database = self.reach(principal, project).await?;
        let page = clamp(page);
        let rows =
            select(principal, project, filter, page).all(&database).await.map_err(unavailable)?;
        page_of(page, rows, from_row, place)
    }
}

fn place(attempt: &Attempt) -> AttemptPosition {
    AttemptPosition { number: attempt.number, started_at: attempt.started_at, id: attempt.id.0 }
}

pub(super) fn select(
    principal: &Principal,
    project: ProjectId,
    filter: &AttemptFilter,
    page: PageRequest<AttemptPosition>,
) -> Select<attempt::Entity> {
    let rows = attempt::Entity::find().filter(further(principal, project, filter));
    let (rows, keys) = match filter.delivery {
        Some(delivery) => of_delivery(rows, delivery, filter, page),
        None => by_start(rows, project, filter, page),
    };
    let order = if matches!(page.from, Some(Cursor::Before(_))) { Order::Asc } else { Order::Desc };
    keys.into_iter()
        .fold(rows, |rows, key| rows.order_by(key, order.clone()))
        .limit(u64::from(page.size) + 1)
}

/// The outcome, if it has an index of its own.
fn unusual(filter: &AttemptFilter) -> Option<AttemptOutcome> {
    filter.outcome.filter(|outcome| *outcome != AttemptOutcome::Succeeded)
}

fn further(principal: &Principal, project: ProjectId, filter: &AttemptFilter) -> Condition {
    let (by_endpoint, unusual) =
        (filter.delivery.is_none() && filter.endpoint.is_some(), unusual(filter));
    let by_outcome = filter.delivery.is_none() && unusual.is_some();
    Condition::all()
        .add_option(
            (by_endpoint || filter.delivery.is_some())
                .then(|| of_project(Column::ProjectId, project)),
        )
        .add_option(
            filter
                .endpoint
                .filter(|_| !by_endpoint)
                .map(|endpoint| Column::EndpointId.eq(endpoint.0)),
        )
        // As a constant, because the planner must know it, whatever the parameters are, to use the
        // index of unusual outcomes.
        .add_option(by_outcome.then(|| Expr::cust("outcome <> 1")))
        .add_option(
            filter
                .outcome
                .filter(|_| !by_outcome)
                .map(|outcome| Column::Outcome.eq(outcome as i16)),
        )
        .add_option(own_endpoints(Column::EndpointId, principal, project))
}

/// The attempts of a delivery have the millisecond of its id. They are few, and get sorted.
fn of_delivery(
    rows: Select<attempt::Entity>,
    delivery: DeliveryId,
    filter: &AttemptFilter,
    page: PageRequest<AttemptPosition>,
) -> (Select<attempt::Entity>, Vec<Column>) {
    let keys = vec![Column::Number, Column::StartedAt, Column::Id];
    let values = |place: AttemptPosition| -> Vec<Value> {
        vec![
            i32::try_from(place.number).unwrap_or(i32::MAX).into(),
            place.started_at.0.into(),
            place.id.into(),
        ]
    };
    let key = |place: AttemptPosition| (place.number, place.started_at, place.id);
    let range = narrowed([FIRST, LAST], page, key).map(values);
    let of_delivery = Condition::all()
        .add(Column::DeliveryId.eq(delivery.0))
        .add(IdRange::ALL.millisecond(delivery.time()).condition(Column::Id))
        .add_option(filter.start.map(|start| Column::StartedAt.gte(start.0)))
        .add_option(filter.end.map(|end| Column::StartedAt.lt(end.0)))
        .add(between(&[], &keys, range));
    (rows.filter(of_delivery), keys)
}

/// A range of an index over the start. No attempt is older than its delivery, so partitions of
/// later days are skipped.
fn by_start(
    rows: Select<attempt::Entity>,
    project: ProjectId,
    filter: &AttemptFilter,
    page: PageRequest<AttemptPosition>,
) -> (Select<attempt::Entity>, Vec<Column>) {
    let mut prefix = match filter.endpoint {
        Some(endpoint) => vec![(Column::EndpointId, endpoint.0.into())],
        None => vec![(Column::ProjectId, project.0.into())],
    };
    prefix.extend(unusual(filter).map(|outcome| (Column::Outcome, (outcome as i16).into())));
    let keys = [Column::StartedAt, Column::Id];
    let values =
        |place: AttemptPosition| -> Vec<Value> { vec![place.started_at.0.into(), place.id.into()] };
    let key = |place: AttemptPosition| (place.started_at, place.id);
    let from = AttemptPosition { started_at: filter.start.unwrap_or(FIRST.started_at), ..FIRST };
    let until = filter.end.map_or(LAST, |end| AttemptPosition { started_at: end, ..FIRST });
    let [from, until] = narrowed([from, until], page, key);
    let ids = IdRange::ALL.during(None, Some(until.started_at.plus(SKEW)));
    let rows = rows
        .filter(between(&prefix, &keys, [values(from), values(until)]))
        .filter(ids.condition(Column::Id));
    (rows, prefix.into_iter().map(|(column, _)| column).chain(keys).collect())
}

/// The part of a range that a page may contain.
fn narrowed<K: Ord>(
    [from, until]: [AttemptPosition; 2],
    page: PageRequest<AttemptPosition>,
    key: impl Fn(AttemptPosition) -> K,
) -> [AttemptPosition; 2] {
    match page.from {
        None => [from, until],
        Some(Cursor::After(place)) => [from, min_by_key(until, place, |place| key(*place))],
        Some(Cursor::Before(place)) => {
            let next = AttemptPosition {
                id: Uuid::from_u128(place.id.as_u128().saturating_add(1)),
                ..place
            };
            [max_by_key(from, next, |place| key(*place)), until]
        }
    }
}

pub(super) fn from_row(row: attempt::Model) -> Result<Attempt> {
    Ok(Attempt {
        id: AttemptId(row.id),
        delivery: DeliveryId(row.delivery_id),
        event: EventId(row.event_id),
        endpoint: EndpointId(row.endpoint_id),
        project: ProjectId(row.project_id),
        number: count(row.number),
        outcome: AttemptOutcome::from_number(row.outcome.into())
            .ok_or_else(|| malformed_row(TABLE, "outcome"))?,
        status_code: status_code(row.status_code),
        started_at: Timestamp(row.started_at),
        duration: Duration::from_micros(u64::try_from(row.duration_micros).unwrap_or(0)),
        response_headers: Vec::new(),
        response_body: Vec::new(),
        response_truncated: row.response_truncated,
        error_message: row.error_message,
        resent: row.resent,
    })
}
