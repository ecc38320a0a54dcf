//! Queries of deliveries, pending and ended, as one list.

use std::collections::HashSet;

use outrider_model::{
    Delivery, DeliveryId, DeliveryReason, DeliveryStatus, EndpointId, EndpointState, Error,
    EventId, Page, PageRequest, Principal, ProjectId, Result, Timestamp, page::Cursor,
};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    Select,
    sea_query::{Expr, SimpleExpr},
};
use uuid::Uuid;

use super::{
    ids::{IdRange, padded},
    pages::clamp,
    ranges::{of_project, own_endpoints, range},
};
use crate::{
    Store,
    configuration::entity::endpoint,
    connection::error::{malformed_row, unavailable},
    history::{
        codec::{count, status_code, subscriptions_from_bytes},
        entity::{delivery, pending_delivery, replay},
    },
};

const WHAT: &str = "delivery";
/// Maximum number of replays listed for an event: the newest.
const LISTED_REPLAYS: u64 = 1_000;

/// A filter for deliveries of a project. All given fields must match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeliveryFilter {
    /// Includes its replays, of which the newest 1,000 are listed.
    pub event: Option<EventId>,
    pub event_type: Option<String>,
    pub endpoint: Option<EndpointId>,
    pub status: Option<DeliveryStatus>,
    /// Events accepted (or replays created) at this time or later, to the millisecond.
    pub start: Option<Timestamp>,
    /// Events accepted (or replays created) before this time, to the millisecond.
    pub end: Option<Timestamp>,
}

/// The ids that come into question.
#[derive(Debug, Clone)]
pub(super) enum Candidates {
    All,
    /// The deliveries of an event, which share its time.
    Event(EventId),
    /// These ids.
    Ids(Vec<Uuid>),
}

impl Candidates {
    /// The range of all candidates.
    fn ids(&self, filter: &DeliveryFilter) -> IdRange {
        let ids = IdRange::ALL.during(filter.start, filter.end);
        match self {
            Self::Event(event) => ids.millisecond(event.time()),
            Self::All => ids,
            Self::Ids(list) => IdRange::spanning(list).map_or(ids, |span| ids.intersect(span)),
        }
    }

    fn condition<C: ColumnTrait>(&self, id: C, event_id: C) -> Option<SimpleExpr> {
        match self {
            Self::All => None,
            Self::Event(event) => Some(event_id.eq(event.0)),
            Self::Ids(ids) => Some(id.is_in(padded(ids.clone()))),
        }
    }
}

/// A query of deliveries by a principal.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeliveryQuery<'a> {
    pub principal: &'a Principal,
    pub project: ProjectId,
    pub filter: &'a DeliveryFilter,
    pub page: PageRequest,
}

impl Store {
    /// A delivery. A principal that is bound to an owner sees only deliveries to that owner's
    /// endpoints. Errors: `NOT_FOUND`.
    pub async fn get_delivery(
        &self,
        principal: &Principal,
        project: ProjectId,
        id: DeliveryId,
    ) -> Result<Delivery> {
        let database = self.reach(principal, project).await?;
        self.delivery(&database, principal, project, id).await
    }

    /// The same, in a project that the principal is known to reach.
    pub(crate) async fn delivery(
        &self,
        database: &impl ConnectionTrait,
        principal: &Principal,
        project: ProjectId,
        id: DeliveryId,
    ) -> Result<Delivery> {
        let filter = DeliveryFilter::default();
        let query = DeliveryQuery {
            principal,
            project,
            filter: &filter,
            page: PageRequest { size: 1, from: None },
        };
        let found = self.merged(database, query, &[Candidates::Ids(vec![id.0])]).await?;
        found.into_iter().next().ok_or_else(|| Error::not_found(WHAT))
    }

    /// Deliveries of a project, newest event first. Errors: `NOT_FOUND` for the project.
    pub async fn list_deliveries(
        &self,
        principal: &Principal,
        project: ProjectId,
        filter: &DeliveryFilter,
        page: PageRequest,
    ) -> Result<Page<Delivery>> {
        let database = self.reach(principal, project).await?;
        let page = clamp(page);
        let candidates = match filter.event {
            None => vec![Candidates::All],
            Some(event) => deliveries_of_event(&database, project, event).await?,
        };
        let deliveries = self
            .merged(&database, DeliveryQuery { principal, project, filter, page }, &candidates)
            .await?;
        Ok(Page::from_rows(page, deliveries, |delivery| delivery.id.0))
    }

    /// The page's deliveries and one more. Reads pending deliveries first, so that one that ends in
    /// between is found twice rather than missed.
    pub(super) async fn merged(
        &self,
        database: &impl ConnectionTrait,
        query: DeliveryQuery<'_>,
        candidates: &[Candidates],
    ) -> Result<Vec<Delivery>> {
        let (pending, ended) = match query.filter.status {
            None => (true, true),
            Some(DeliveryStatus::Pending) => (true, false),
            Some(_) => (false, true),
        };
        let (mut pending_rows, mut ended_rows) = (Vec::new(), Vec::new());
        for candidates in candidates {
            if pending {
                pending_rows.extend(
                    select_pending(query, candidates).all(database).await.map_err(unavailable)?,
                );
            }
            if ended {
                ended_rows.extend(
                    select_ended(query, candidates).all(database).await.map_err(unavailable)?,
                );
            }
        }
        let mut deliveries: Vec<Delivery> =
            ended_rows.into_iter().map(from_ended).collect::<Result<_>>()?;
        let ended_ids: HashSet<DeliveryId> =
            deliveries.iter().map(|delivery| delivery.id).collect();
        pending_rows.retain(|row| !ended_ids.contains(&DeliveryId(row.id)));
        let paused = paused(database, &pending_rows).await?;
        let now = self.clock().now();
        deliveries.extend(pending_rows.into_iter().map(|row| {
            let paused = paused.contains(&row.endpoint_id);
            from_pending(row, paused, now)
        }));
        match query.page.from {
            Some(Cursor::Before(_)) => deliveries.sort_by_key(|delivery| delivery.id),
            _ => deliveries.sort_by_key(|delivery| std::cmp::Reverse(delivery.id)),
        }
        // A replay within the millisecond of its event is found by both candidates.
        deliveries.dedup_by_key(|delivery| delivery.id);
        deliveries.truncate(query.page.size as usize + 1);
        Ok(deliveries)
    }
}

/// The candidates for the deliveries of an event.
async fn deliveries_of_event(
    database: &impl ConnectionTrait,
    project: ProjectId,
    event: EventId,
) -> Result<Vec<Candidates>> {
    let replays = replay::Entity::find()
        .select_only()
        .column(replay::Column::DeliveryId)
        .filter(replay::Column::EventId.eq(event.0))
        .filter(replay::Column::ProjectId.eq(project.0))
        .order_by_desc(replay::Column::DeliveryId)
        .limit(LISTED_REPLAYS);
    let replays: Vec<Uuid> = replays.into_tuple().all(database).await.map_err(unavailable)?;
    let first = Candidates::Event(event);
    Ok(if replays.is_empty() { vec![first] } else { vec![first, Candidates::Ids(replays)] })
}

/// The paused endpoints of these rows.
async fn paused(
    database: &impl ConnectionTrait,
    rows: &[pending_delivery::Model],
) -> Result<HashSet<Uuid>> {
    let endpoints: HashSet<Uuid> = rows.iter().map(|row| row.endpoint_id).collect();
    if endpoints.is_empty() {
        return Ok(endpoints);
    }
    let paused = endpoint::Entity::find()
        .select_only()
        .column(endpoint::Column::Id)
        .filter(endpoint::Column::Id.is_in(padded(endpoints.into_iter().collect())))
        .filter(endpoint::Column::State.eq(EndpointState::Paused as i16));
    let paused: Vec<Uuid> = paused.into_tuple().all(database).await.map_err(unavailable)?;
    Ok(paused.into_iter().collect())
}

pub(super) fn select_pending(
    query: DeliveryQuery<'_>,
    candidates: &Candidates,
) -> Select<pending_delivery::Entity> {
    use pending_delivery::Column;
    let DeliveryQuery { principal, project, filter, page } = query;
    let (prefix, rest) = match filter.endpoint {
        Some(endpoint) => {
            ((Column::EndpointId, endpoint.0.into()), Some(of_project(Column::ProjectId, project)))
        }
        None => ((Column::ProjectId, project.0.into()), None),
    };
    let further = Condition::all()
        .add_option(rest)
        .add_option(filter.event_type.as_deref().map(|event_type| Column::EventType.eq(event_type)))
        .add_option(own_endpoints(Column::EndpointId, principal, project))
        .add_option(candidates.condition(Column::Id, Column::EventId));
    range(
        pending_delivery::Entity::find().filter(further),
        &[prefix],
        Column::Id,
        candidates.ids(filter),
        page,
    )
}

pub(super) fn select_ended(
    query: DeliveryQuery<'_>,
    candidates: &Candidates,
) -> Select<delivery::Entity> {
    use delivery::Column;
    let DeliveryQuery { principal, project, filter, page } = query;
    let unusual = filter.status.filter(|status| *status != DeliveryStatus::Delivered);
    let mut prefix = match filter.endpoint {
        Some(endpoint) => vec![(Column::EndpointId, endpoint.0.into())],
        None => vec![(Column::ProjectId, project.0.into())],
    };
    // The indexes over the endpoint or the status do not contain the type.
    let typed = filter.event_type.as_deref();
    let by_type = typed.filter(|_| filter.endpoint.is_none() && unusual.is_none());
    prefix.extend(unusual.map(|status| (Column::Status, (status as i16).into())));
    prefix.extend(by_type.map(|event_type| (Column::EventType, event_type.into())));
    let further = Condition::all()
        .add_option(filter.endpoint.map(|_| of_project(Column::ProjectId, project)))
        .add_option(
            typed.filter(|_| by_type.is_none()).map(|event_type| Column::EventType.eq(event_type)),
        )
        // As a constant, because the planner must know it, whatever the parameters are, to use the
        // index of unusual statuses.
        .add_option(unusual.map(|_| Expr::cust("status <> 2")))
        .add_option(
            filter
                .status
                .filter(|_| unusual.is_none())
                .map(|status| Column::Status.eq(status as i16)),
        )
        .add_option(own_endpoints(Column::EndpointId, principal, project))
        .add_option(candidates.condition(Column::Id, Column::EventId));
    range(
        delivery::Entity::find().filter(further),
        &prefix,
        Column::Id,
        candidates.ids(filter),
        page,
    )
}

fn from_pending(row: pending_delivery::Model, paused: bool, now: Timestamp) -> Delivery {
    let reason = if paused {
        DeliveryReason::EndpointPaused
    } else if row.attempt > 1 {
        DeliveryReason::Retrying
    } else if row.due_at > now.0 {
        DeliveryReason::Scheduled
    } else {
        DeliveryReason::Due
    };
    Delivery {
        id: DeliveryId(row.id),
        project: ProjectId(row.project_id),
        event: EventId(row.event_id),
        event_type: row.event_type,
        endpoint: EndpointId(row.endpoint_id),
        subscriptions: subscriptions_from_bytes(&row.subscription_ids),
        replay_number: count(row.replay_number),
        status: DeliveryStatus::Pending,
        reason,
        attempt_count: count(row.attempt - 1),
        next_attempt_at: Some(Timestamp(row.due_at)),
        last_status_code: status_code(row.last_status_code),
        created_at: Timestamp(row.created_at),
        finished_at: None,
    }
}

fn from_ended(row: delivery::Model) -> Result<Delivery> {
    const TABLE: &str = "deliveries";
    Ok(Delivery {
        id: DeliveryId(row.id),
        project: ProjectId(row.project_id),
        event: EventId(row.event_id),
        event_type: row.event_type,
        endpoint: EndpointId(row.endpoint_id),
        subscriptions: subscriptions_from_bytes(&row.subscription_ids),
        replay_number: count(row.replay_number),
        status: DeliveryStatus::from_number(row.status.into())
            .ok_or_else(|| malformed_row(TABLE, "status"))?,
        reason: DeliveryReason::from_number(row.reason.into())
            .ok_or_else(|| malformed_row(TABLE, "reason"))?,
        attempt_count: count(row.attempt_count),
        next_attempt_at: None,
        last_status_code: status_code(row.last_status_code),
        created_at: Timestamp(row.created_at),
        finished_at: Some(Timestamp(row.finished_at)),
    })
}
