//! Manual retries: a pending delivery becomes due, and an ended one is delivered again.

#[cfg(test)]
mod tests;

use outrider_model::{
    Delivery, DeliveryId, DeliveryStatus, Error, Principal, ProjectId, Reason, Result, Timestamp,
};
use outrider_shares::Holder;
use sea_orm::{
    ActiveValue::Set, ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect, TryInsertResult, sea_query::OnConflict,
};

use super::{
    codec::{number, subscriptions_to_bytes},
    entity::{event, pending_delivery, replay},
};
use crate::{
    Store,
    configuration::endpoints,
    connection::{error::unavailable, transaction},
};

/// Several callers may retry a delivery concurrently, and each needs a replay number of its own:
/// the number of attempts to get one.
const NUMBER_TRIES: u32 = 16;

impl Store {
    /// Makes the next attempt of a pending delivery due now. If its attempt waits in the queue or
    /// is in progress, the delivery stays as it is. For an ended delivery, creates a new one of the
    /// same event to the same endpoint with the next replay number. Returns the delivery that will
    /// be attempted. Errors: `NOT_FOUND`; `FAILED_PRECONDITION` if the endpoint was deleted or the
    /// event is no longer kept; `PAYLOAD_ERASED`.
    pub async fn retry_delivery(
        &self,
        principal: &Principal,
        project: ProjectId,
        id: DeliveryId,
    ) -> Result<Delivery> {
        self.reach(principal, project).await?;
        // One turn for the whole call, because it must not be refused once something took effect.
        let _turn = self.connection_turn(Holder::within(principal, project)).await?;
        let find = async |id| self.delivery(self.read(), principal, project, id).await;
        let delivery = find(id).await?;
        endpoints::find(self.read(), principal, project, delivery.endpoint).await.map_err(
            |error| match error.reason {
                Reason::NotFound => Error::new(
                    Reason::FailedPrecondition,
                    "the endpoint of the delivery is deleted",
                ),
                _ => error,
            },
        )?;
        if delivery.status == DeliveryStatus::Pending {
            self.make_due(id).await?;
            let delivery = find(id).await?;
            // It may have ended just now. Then a new one is needed.
            if delivery.status == DeliveryStatus::Pending {
                return Ok(delivery);
            }
        }
        for _ in 0..NUMBER_TRIES {
            if let Some(replay) = self.replay(&delivery).await? {
                return find(replay).await;
            }
        }
        Err(Error::unavailable("too many concurrent retries of this delivery"))
    }

    async fn make_due(&self, id: DeliveryId) -> Result<()> {
        use pending_delivery::{ActiveModel, Column, Entity};
        let now = self.clock().now().0;
        let due = ActiveModel { due_at: Set(now), ..Default::default() };
        let waiting = Entity::update_many()
            .set(due)
            .filter(Column::Id.eq(id.0))
            .filter(Column::QueuedEpoch.is_null())
            .filter(Column::DueAt.gt(now));
        waiting.exec(self.write()).await.map_err(unavailable)?;
        Ok(())
    }

    /// Writes the next replay and its pending delivery. None if another call took the number.
    async fn replay(&self, delivery: &Delivery) -> Result<Option<DeliveryId>> {
        let last = replay::Entity::find()
            .select_only()
            .column(replay::Column::ReplayNumber)
            .filter(replay::Column::EventId.eq(delivery.event.0))
            .filter(replay::Column::EndpointId.eq(delivery.endpoint.0))
            .order_by_desc(replay::Column::ReplayNumber)
            .limit(1);
        let last: Option<i32> = last.into_tuple().one(self.read()).await.map_err(unavailable)?;
        let replay_number = last.unwrap_or(0).unsigned_abs() + 1;
        let now = self.clock().now();
        let id = DeliveryId::derive(now, delivery.event, delivery.endpoint, replay_number);
        let transaction = transaction::begin_beside(self).await?;
        // This must come first: a step that drops the event's day blocks writes to this table
        // before it locks the event.
        let key =
            [replay::Column::EventId, replay::Column::EndpointId, replay::Column::ReplayNumber];
        let taken = replay::Entity::insert(replay::ActiveModel {
            event_id: Set(delivery.event.0),
            endpoint_id: Set(delivery.endpoint.0),
            replay_number: Set(number(replay_number)),
            delivery_id: Set(id.0),
            project_id: Set(delivery.project.0),
        })
        .on_conflict(OnConflict::columns(key).do_nothing().to_owned())
        .try_insert()
        .exec_without_returning(&transaction)
        .await
        .map_err(unavailable)?;
        if !matches!(taken, TryInsertResult::Inserted(1..)) {
            return Ok(None);
        }
        hold_event(&transaction, delivery).await?;
        let row = replayed(delivery, id, replay_number, now);
        pending_delivery::Entity::insert(row)
            .exec_without_returning(&transaction)
            .await
            .map_err(unavailable)?;
        transaction.commit().await.map_err(unavailable)?;
        Ok(Some(id))
    }
}

/// Locks the event and its payload until the transaction ends, when the pending delivery is
/// visible. Dropping a day and erasing payloads wait for this lock, and then see the delivery.
async fn hold_event(transaction: &DatabaseTransaction, delivery: &Delivery) -> Result<()> {
    let held = event::Entity::find_by_id(delivery.event.0)
        .select_only()
        .column(event::Column::PayloadErasedAt)
        .filter(event::Column::ProjectId.eq(delivery.project.0))
        .lock_shared();
    let held: Option<Option<i64>> =
        held.into_tuple().one(transaction).await.map_err(unavailable)?;
    match held {
        None => Err(Error::new(
            Reason::FailedPrecondition,
            "the event of the delivery is no longer kept",
        )),
        Some(Some(_)) => {
            Err(Error::new(Reason::PayloadErased, "the payload of the event was erased"))
        }
        Some(None) => Ok(()),
    }
}

/// The row of a replay. It is unqueued and due, so the feeder finds it.
fn replayed(
    delivery: &Delivery,
    id: DeliveryId,
    replay_number: u32,
    now: Timestamp,
) -> pending_delivery::ActiveModel {
    pending_delivery::ActiveModel {
        id: Set(id.0),
        project_id: Set(delivery.project.0),
        event_id: Set(delivery.event.0),
        event_type: Set(delivery.event_type.clone()),
        endpoint_id: Set(delivery.endpoint.0),
        subscription_ids: Set(subscriptions_to_bytes(&delivery.subscriptions)),
        replay_number: Set(number(replay_number)),
        attempt: Set(1),
        due_at: Set(now.0),
        queued_epoch: Set(None),
        generation: Set(0),
        check_at: Set(now.0),
        last_status_code: Set(None),
        created_at: Set(now.0),
    }
}
