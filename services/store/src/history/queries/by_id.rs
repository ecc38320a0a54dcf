//! Queries of many events, deliveries or attempts by their ids, in the order of the given ids.
//! Tails use them.

use std::collections::HashMap;

use outrider_model::{
    Attempt, AttemptId, Delivery, DeliveryId, Event, EventId, PageRequest, Principal, ProjectId,
    Result,
};
use outrider_shares::Holder;
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter};
use uuid::Uuid;

use super::{
    attempts,
    deliveries::{Candidates, DeliveryFilter, DeliveryQuery},
    events,
    ids::{IdRange, padded},
    ranges::own_endpoints,
};
use crate::{
    Store,
    connection::error::unavailable,
    history::entity::{attempt, event},
};

impl Store {
    /// The existing ones of these events of a project, without payloads. The caller must check
    /// [`Store::reads_all_events`].
    pub async fn events_by_id(
        &self,
        holder: Holder,
        project: ProjectId,
        ids: &[EventId],
    ) -> Result<Vec<Event>> {
        self.within(async {
            use event::Column;
            let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
            let Some(range) = IdRange::spanning(&ids) else { return Ok(Vec::new()) };
            let select = event::Entity::find()
                .filter(Column::Id.is_in(padded(ids.clone())))
                .filter(range.condition(Column::Id))
                .filter(Column::ProjectId.eq(project.0));
            let rows = select.all(&self.caller_connection(holder)).await.map_err(unavailable)?;
            let found: Vec<Event> =
                rows.into_iter().map(events::from_row).collect::<Result<_>>()?;
            Ok(in_order(&ids, found, |event| event.id.0))
        })
        .await
    }

    /// The existing ones of these deliveries of a project, as they are now. A principal that is
    /// bound to an owner sees only those to that owner's endpoints.
    pub async fn deliveries_by_id(
        &self,
        principal: &Principal,
        project: ProjectId,
        ids: &[DeliveryId],
    ) -> Result<Vec<Delivery>> {
        self.within(async {
            if ids.is_empty() {
                return Ok(Vec::new());
            }
            let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
            let (filter, size) =
                (DeliveryFilter::default(), u32::try_from(ids.len()).unwrap_or(u32::MAX));
            let query = DeliveryQuery {
                principal,
                project,
                filter: &filter,
                page: PageRequest { size, from: None },
            };
            let found = self
                .merged(
                    &self.connection_within(principal, project),
                    query,
                    &[Candidates::Ids(ids.clone())],
                )
                .await?;
            Ok(in_order(&ids, found, |delivery| delivery.id.0))
        })
        .await
    }

    /// The existing ones of these attempts of a project, without the answers' headers and bodies. A
    /// principal that is bound to an owner sees only those at that owner's endpoints.
    pub async fn attempts_by_id(
        &self,
        principal: &Principal,
        project: ProjectId,
        ids: &[AttemptId],
    ) -> Result<Vec<Attempt>> {
        self.within(async {
            use attempt::Column;
            let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
            let Some(range) = IdRange::spanning(&ids) else { return Ok(Vec::new()) };
            let reach = Condition::all()
                .add(Column::Id.is_in(padded(ids.clone())))
                .add(range.condition(Column::Id))
                .add(Column::ProjectId.eq(project.0))
                .add_option(own_endpoints(Column::EndpointId, principal, project));
            let rows = attempt::Entity::find()
                .filter(reach)
                .all(&self.connection_within(principal, project))
                .await
                .map_err(unavailable)?;
            let found: Vec<Attempt> =
                rows.into_iter().map(attempts::from_row).collect::<Result<_>>()?;
            Ok(in_order(&ids, found, |attempt| attempt.id.0))
        })
        .await
    }
}

/// Sorts what was found by the order of the ids, each once.
fn in_order<T>(ids: &[Uuid], found: Vec<T>, id: impl Fn(&T) -> Uuid) -> Vec<T> {
    let mut found: HashMap<Uuid, T> = found.into_iter().map(|item| (id(&item), item)).collect();
    ids.iter().filter_map(|id| found.remove(id)).collect()
}
