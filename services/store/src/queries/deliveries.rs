//! Deliveries, pending and ended, as one list.

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
    IdRange, clamp,
    entity::{delivery, pending_delivery, replay},
    of_project, own_endpoints, padded, range,
};
use crate::{
    Store,
    entity::endpoint,
    error::{malformed_row, unavailable},
    ledger::codec::{count, status_code, subscriptions_from_bytes},
};

const WHAT: &str = "delivery";
/// Of the replays of one event, so many are listed, the newest.
const LISTED_REPLAYS: u64 = 1_000;

/// Which deliveries of a project are wanted: those for which all that is given holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeliveryFilter {
    /// With its replays, of which the newest 1,000 are listed.
    pub event: Option<EventId>,
    pub event_type: Option<String>,
    pub endpoint: Option<EndpointId>,
    pub status: Option<DeliveryStatus>,
    /// Of events accepted (or replays made) then or later, to the millisecond.
    pub start: Option<Timestamp>,
    /// Of events accepted (or replays made) before, to the millisecond.
    pub end: Option<Timestamp>,
}

/// Among which ids to look.
#[derive(Debug, Clone)]
pub(super) enum Among {
    All,
    /// Those that share the event's time.
    Event(EventId),
    /// Those of replays.
    Ids(Vec<Uuid>),
}

impl Among {
    /// All ids that come into question.
    fn ids(&self, filter: &DeliveryFilter) -> IdRange {
        let ids = IdRange::ALL.during(filter.start, filter.end);
        match self {
            Self::Event(event) => ids.millisecond(event.time()),
            Self::All => ids,
            Self::Ids(among) => IdRange::spanning(among).map_or(ids, |span| ids.within(span)),
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

/// Who asks for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub principal: &'a Principal,
    pub project: ProjectId,
    pub filter: &'a DeliveryFilter,
    pub page: PageRequest,
}

impl Store {
    /// One delivery. A principal that is bound to an owner sees those to that owner's endpoints.
    /// Errors: `NOT_FOUND`.
    pub async fn get_delivery(
        &self,
        principal: &Principal,
        project: ProjectId,
        id: DeliveryId,
    ) -> Result<Delivery> {
        let database = self.reach(principal, project).await?;
        self.delivery(&database, principal, project, id).await
    }

    /// The same, of a project that the principal is known to reach.
    pub(super) async fn delivery(
        &self,
        database: &impl ConnectionTrait,
        principal: &Principal,
        project: ProjectId,
        id: DeliveryId,
    ) -> Result<Delivery> {
        let filter = DeliveryFilter::default();
        let wanted = Wanted {
            principal,
            project,
            filter: &filter,
            page: PageRequest { size: 1, from: None },
        };
        let found = self.merged(database, wanted, &[Among::Ids(vec![id.0])]).await?;
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
        let among = match filter.event {
            None => vec![Among::All],
            Some(event) => deliveries_of_event(&database, project, event).await?,
        };
        let deliveries =
            self.merged(&database, Wanted { principal, project, filter, page }, &among).await?;
        Ok(Page::from_rows(page, deliveries, |delivery| delivery.id.0))
    }

    /// The page's deliveries and one more. Pending ones are read first: one that ends in between is
    /// then found twice, not missed.
    pub(super) async fn merged(
        &self,
        database: &impl ConnectionTrait,
        wanted: Wanted<'_>,
        among: &[Among],
    ) -> Result<Vec<Delivery>> {
        let (pending, ended) = match wanted.filter.status {
            None => (true, true),
            Some(DeliveryStatus::Pending) => (true, false),
            Some(_) => (false, true),
        };
        let (mut pending_rows, mut ended_rows) = (Vec::new(), Vec::new());
        for among in among {
            if pending {
                pending_rows.extend(
                    select_pending(wanted, among).all(database).await.map_err(unavailable)?,
                );
            }
            if ended {
                ended_rows
                    .extend(select_ended(wanted, among).all(database).await.map_err(unavailable)?);
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
        match wanted.page.from {
            Some(Cursor::Before(_)) => deliveries.sort_by_key(|delivery| delivery.id),
            _ => deliveries.sort_by_key(|delivery| std::cmp::Reverse(delivery.id)),
        }
        // A replay within the millisecond of its event is found on both ways.
        deliveries.dedup_by_key(|delivery| delivery.id);
        deliveries.truncate(wanted.page.size as usize + 1);
        Ok(deliveries)
    }
}

/// Where to look for the deliveries of an event.
async fn deliveries_of_event(
    database: &impl ConnectionTrait,
    project: ProjectId,
    event: EventId,
) -> Result<Vec<Among>> {
    let replays = replay::Entity::find()
        .select_only()
        .column(replay::Column::DeliveryId)
        .filter(replay::Column::EventId.eq(event.0))
        .filter(replay::Column::ProjectId.eq(project.0))
        .order_by_desc(replay::Column::DeliveryId)
        .limit(LISTED_REPLAYS);
    let replays: Vec<Uuid> = replays.into_tuple().all(database).await.map_err(unavailable)?;
    let first = Among::Event(event);
    Ok(if replays.is_empty() { vec![first] } else { vec![first, Among::Ids(replays)] })
}

/// Which of the rows' endpoints are paused.
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
    wanted: Wanted<'_>,
    among: &Among,
) -> Select<pending_delivery::Entity> {
    use pending_delivery::Column;
    let Wanted { principal, project, filter, page } = wanted;
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
        .add_option(among.condition(Column::Id, Column::EventId));
    range(
        pending_delivery::Entity::find().filter(further),
        &[prefix],
        Column::Id,
        among.ids(filter),
        page,
    )
}

pub(super) fn select_ended(wanted: Wanted<'_>, among: &Among) -> Select<delivery::Entity> {
    use delivery::Column;
    let Wanted { principal, project, filter, page } = wanted;
    let unusual = filter.status.filter(|status| *status != DeliveryStatus::Delivered);
    let mut prefix = match filter.endpoint {
        Some(endpoint) => vec![(Column::EndpointId, endpoint.0.into())],
        None => vec![(Column::ProjectId, project.0.into())],
    };
    // An index over the endpoint or the status has no room for the type.
    let typed = filter.event_type.as_deref();
    let by_type = typed.filter(|_| filter.endpoint.is_none() && unusual.is_none());
    prefix.extend(unusual.map(|status| (Column::Status, (status as i16).into())));
    prefix.extend(by_type.map(|event_type| (Column::EventType, event_type.into())));
    let further = Condition::all()
        .add_option(filter.endpoint.map(|_| of_project(Column::ProjectId, project)))
        .add_option(
            typed.filter(|_| by_type.is_none()).map(|event_type| Column::EventType.eq(event_type)),
        )
        // In the text: the planner must know it, whatever the parameters are, to use the index of
        // what is unusual.
        .add_option(unusual.map(|_| Expr::cust("status <> 2")))
        .add_option(
            filter
                .status
                .filter(|_| unusual.is_none())
                .map(|status| Column::Status.eq(status as i16)),
        )
        .add_option(own_endpoints(Column::EndpointId, principal, project))
        .add_option(among.condition(Column::Id, Column::EventId));
    range(delivery::Entity::find().filter(further), &prefix, Column::Id, among.ids(filter), page)
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
