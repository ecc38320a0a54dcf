//! Erasing payloads: that of one event immediately, or all of a project that are older than it
//! keeps them. A step locks the row of an event before it checks whether a delivery of it is
//! pending. A retry locks that row too, so no pending delivery ever lacks its payload.

use std::{cmp::min, collections::HashSet, time::Duration};

use outrider_model::{
    Error, Event, EventId, Principal, ProjectId, Reason, Result, Timestamp, id::uuid_bound,
};
use outrider_shares::Holder;
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect, QueryTrait,
    sea_query::{Alias, Expr, ExprTrait, LockType, OnConflict, Query, SimpleExpr},
};
use uuid::Uuid;

use super::{
    step::Progress,
    sweep::{begin_sweep, give_up, is_blocked},
};
use crate::{
    Store,
    configuration::{entity::project, projects},
    connection::{error::unavailable, transaction::begin_beside},
    history::{
        entity::{attempt, event, payload_erasure, payload_hold, pending_delivery, replay},
        queries::{
            events,
            ids::{IdRange, padded},
            ranges::{of_project, within},
        },
    },
};

/// Maximum numbers of events that a step locks and examines. The second is larger, because most
/// events that are examined again have been erased.
const CHUNK: u64 = 500;
const EXAMINED: u64 = 5_000;
/// Maximum numbers of bytes of payloads that a step erases, and of deliveries whose answers it
/// erases, unless one event alone has more.
const CHUNK_BYTES: u64 = 4 * 1024 * 1024;
const CHUNK_DELIVERIES: u64 = 5_000;

/// The outcome of a step of erasing payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erased {
    /// Number of erased payloads.
    pub payloads: u64,
    pub progress: Progress,
}

impl Erased {
    const BLOCKED: Self = Self { payloads: 0, progress: Progress::Blocked };
}

impl Store {
    /// Up to `limit` projects after `after` that keep payloads for a time of their own, in the
    /// order of their ids. Includes deleted projects.
    pub async fn payload_retentions(
        &self,
        after: Option<ProjectId>,
        limit: u64,
    ) -> Result<Vec<(ProjectId, Duration)>> {
        self.step_within(async {
            use project::Column;
            let with_retention = project::Entity::find()
                .select_only()
                .columns([Column::Id, Column::PayloadRetentionMicros])
                .filter(Column::PayloadRetentionMicros.is_not_null())
                .filter(Column::Id.gt(after.map_or(Uuid::nil(), |id| id.0)))
                .order_by_asc(Column::Id)
                .limit(limit);
            let rows: Vec<(Uuid, i64)> =
                with_retention.into_tuple().all(self.read()).await.map_err(unavailable)?;
            Ok(rows
                .into_iter()
                .map(|(id, micros)| (ProjectId(id), Duration::from_micros(micros.unsigned_abs())))
                .collect())
        })
        .await
    }

    /// Erases payloads of a project's events from before `before`, by one step. Events with a
    /// pending delivery are noted for [`Store::erase_held_payloads`]. The progress is stored, and
    /// the next step continues there, or at `again` if that is earlier: an event that waited for
    /// its commit, or a clock that went back, writes ids below what was examined.
    pub async fn erase_old_payloads(
        &self,
        project: ProjectId,
        before: Timestamp,
        again: Option<Timestamp>,
    ) -> Result<Erased> {
        self.step_within(async {
            let Some(transaction) = begin_sweep(self).await? else { return Ok(Erased::BLOCKED) };
            let marker = payload_erasure::Entity::find_by_id(project.0)
                .one(&transaction)
                .await
                .map_err(unavailable)?;
            let marker = marker.map_or(Uuid::nil(), |row| row.erased_until);
            let old = IdRange {
                from: again.map_or(marker, |again| min(marker, uuid_bound(again))),
                until: uuid_bound(before),
            };
            if old.from >= old.until {
                return give_up(transaction, Erased { payloads: 0, progress: Progress::Done })
                    .await;
            }
            let range = examined(&transaction, project, old).await?;
            let rows = match locked_payloads(&transaction, project, range, None).await {
                Err(error) if is_blocked(&error) => {
                    return give_up(transaction, Erased::BLOCKED).await;
                }
                rows => rows.map_err(unavailable)?,
            };
            let (ids, is_last) = chunk(rows);
            let (payloads, held) = self.erase_among(&transaction, project, &ids).await?;
            note_held(&transaction, project, &held).await?;
            let next = ids
                .last()
                .filter(|_| !is_last)
                .map_or(range.until, |last| Uuid::from_u128(last.as_u128().saturating_add(1)));
            mark(&transaction, project, next).await?;
            transaction.commit().await.map_err(unavailable)?;
            let progress = if is_last && range == old { Progress::Done } else { Progress::More };
            Ok(Erased { payloads, progress })
        })
        .await
    }

    /// Visits the noted events of a project after `after`, by one step: those that had a pending
    /// delivery when their payload should have been erased. Erases the payloads of those that have
    /// none any more. Returns where to continue if there is more.
    pub async fn erase_held_payloads(
        &self,
        project: ProjectId,
        before: Timestamp,
        after: Option<EventId>,
    ) -> Result<(Erased, Option<EventId>)> {
        self.step_within(async {
            use payload_hold::{Column, Entity};
            let Some(transaction) = begin_sweep(self).await? else {
                return Ok((Erased::BLOCKED, after));
            };
            let noted = Entity::find()
                .select_only()
                .column(Column::EventId)
                .filter(Column::ProjectId.eq(project.0))
                .filter(Column::EventId.gt(after.map_or(Uuid::nil(), |id| id.0)))
                .filter(Column::EventId.lt(uuid_bound(before)))
                .order_by_asc(Column::EventId)
                .limit(CHUNK);
            let noted: Vec<Uuid> =
                noted.into_tuple().all(&transaction).await.map_err(unavailable)?;
            let (Some(span), Some(mut last)) = (IdRange::spanning(&noted), noted.last().copied())
            else {
                return give_up(
                    transaction,
                    (Erased { payloads: 0, progress: Progress::Done }, None),
                )
                .await;
            };
            let rows = match locked_payloads(&transaction, project, span, Some(noted.clone())).await
            {
                Err(error) if is_blocked(&error) => {
                    return give_up(transaction, (Erased::BLOCKED, after)).await;
                }
                rows => rows.map_err(unavailable)?,
            };
            let (ids, whole) = within_bounds(rows);
            let mut is_last = (noted.len() as u64) < CHUNK;
            if let Some(cut) = ids.last().filter(|_| !whole) {
                (last, is_last) = (*cut, false);
            }
            let (payloads, held) = self.erase_among(&transaction, project, &ids).await?;
            // The erased events, and those that no longer exist.
            let over: Vec<Uuid> =
                noted.into_iter().filter(|id| *id <= last && !held.contains(id)).collect();
            forget_held(&transaction, project, over).await?;
            transaction.commit().await.map_err(unavailable)?;
            let progress = if is_last { Progress::Done } else { Progress::More };
            Ok((Erased { payloads, progress }, (!is_last).then_some(EventId(last))))
        })
        .await
    }

    /// Erases the payload of an event and the answers of endpoints to its deliveries. Returns the
    /// event, and whether this call erased it. Errors: `NOT_FOUND`; `DELIVERIES_PENDING`;
    /// `BEYOND_OWN_SCOPE` for a key that is bound to an owner.
    pub async fn erase_payload(
        &self,
        principal: &Principal,
        project: ProjectId,
        id: EventId,
    ) -> Result<(Event, bool)> {
        self.reach(principal, project).await?;
        projects::require_no_owner(principal)?;
        let _turn = self.connection_turn(Holder::within(principal, project)).await?;
        let transaction = begin_beside(self).await?;
        let row = event::Entity::find_by_id(id.0)
            .filter(event::Column::ProjectId.eq(project.0))
            .lock(LockType::NoKeyUpdate);
        let row = row
            .one(&transaction)
            .await
            .map_err(unavailable)?
            .ok_or_else(|| Error::not_found("event"))?;
        let event = events::from_row(row)?;
        if event.payload_erased_at.is_some() {
            return give_up(transaction, (event, false)).await;
        }
        let (_, held) = self.erase_among(&transaction, project, &[id.0]).await?;
        if !held.is_empty() {
            return Err(Error::new(
                Reason::DeliveriesPending,
                "deliveries of the event are pending: they need its payload",
            ));
        }
        forget_held(&transaction, project, vec![id.0]).await?;
        let erased = events::find(&transaction, project, id)
            .await?
            .ok_or_else(|| Error::not_found("event"))?;
        transaction.commit().await.map_err(unavailable)?;
        Ok((erased, true))
    }

    /// Erases the payloads of those events, sorted and locked, that no pending delivery refers to,
    /// and the answers to them. Returns their number, and the other events.
    async fn erase_among(
        &self,
        transaction: &DatabaseTransaction,
        project: ProjectId,
        ids: &[Uuid],
    ) -> Result<(u64, HashSet<Uuid>)> {
        let held = pending(transaction, project, ids).await?;
        let ids: Vec<Uuid> = ids.iter().filter(|id| !held.contains(id)).copied().collect();
        let Some(span) = IdRange::spanning(&ids) else { return Ok((0, held)) };
        let erase = Query::update()
            .table(event::Entity)
            .value(Alias::new("payload"), Vec::<u8>::new())
            .value(event::Column::PayloadErasedAt, self.clock().now().0)
            .and_where(event::Column::Id.is_in(padded(ids.clone())))
            .and_where(span.condition(event::Column::Id))
            .to_owned();
        let erased = transaction.execute(&erase).await.map_err(unavailable)?.rows_affected();
        // The attempts of first deliveries have the event's millisecond; those of replays have
        // their own.
        for together in ids.chunk_by(|one, next| EventId(*one).time() == EventId(*next).time()) {
            let of_events = attempt::Column::EventId.is_in(padded(together.to_vec()));
            erase_answers(transaction, project, millisecond(together[0]), of_events).await?;
        }
        let replays = replay::Entity::find().select_only().column(replay::Column::DeliveryId);
        let replays = replays.filter(replay::Column::EventId.is_in(padded(ids)));
        for delivery in replays.into_tuple::<Uuid>().all(transaction).await.map_err(unavailable)? {
            let of_replay = attempt::Column::DeliveryId.eq(delivery);
            erase_answers(transaction, project, millisecond(delivery), of_replay).await?;
        }
        Ok((erased, held))
    }
}

/// An event's id, the size of its payload, and the number of its deliveries.
type Sized = (Uuid, i32, i32);

/// The part of a range that a step examines.
async fn examined(
    transaction: &DatabaseTransaction,
    project: ProjectId,
    range: IdRange,
) -> Result<IdRange> {
    use event::Column;
    let beyond = event::Entity::find().select_only().column(Column::Id);
    let beyond = within(beyond, &[(Column::ProjectId, project.0.into())], Column::Id, range)
        .order_by_asc(Column::ProjectId)
        .order_by_asc(Column::Id)
        .offset(EXAMINED)
        .limit(1);
    let beyond: Option<Uuid> = beyond.into_tuple().one(transaction).await.map_err(unavailable)?;
    Ok(IdRange { until: beyond.unwrap_or(range.until), ..range })
}

/// Locks some of a project's events with a payload, oldest first: those among the given ones, or
/// those that are not noted as held.
async fn locked_payloads(
    transaction: &DatabaseTransaction,
    project: ProjectId,
    range: IdRange,
    among: Option<Vec<Uuid>>,
) -> std::result::Result<Vec<Sized>, sea_orm::DbErr> {
    use event::Column;
    let select = event::Entity::find().select_only().columns([
        Column::Id,
        Column::PayloadSize,
        Column::DeliveryCount,
    ]);
    let select = within(select, &[(Column::ProjectId, project.0.into())], Column::Id, range)
        .filter(Column::PayloadErasedAt.is_null())
        .filter(
            among.map_or_else(|| is_not_noted(project, range), |ids| Column::Id.is_in(padded(ids))),
        )
        .order_by_asc(Column::ProjectId)
        .order_by_asc(Column::Id)
        .limit(CHUNK)
        .lock(LockType::NoKeyUpdate);
    select.into_tuple().all(transaction).await
}

fn is_not_noted(project: ProjectId, range: IdRange) -> SimpleExpr {
    use payload_hold::{Column, Entity};
    let noted = Entity::find()
        .select_only()
        .column(Column::EventId)
        .filter(Column::ProjectId.eq(project.0))
        .filter(range.condition(Column::EventId))
        .filter(Expr::col((Entity, Column::EventId)).equals((event::Entity, event::Column::Id)));
    Expr::exists(noted.into_query()).not()
}

/// The ids of a step, and whether these are the last ones.
fn chunk(rows: Vec<Sized>) -> (Vec<Uuid>, bool) {
    let is_last = (rows.len() as u64) < CHUNK;
    let (ids, whole) = within_bounds(rows);
    (ids, is_last && whole)
}

/// The first ids, up to the bytes and deliveries of a step, and whether these are all.
fn within_bounds(rows: Vec<Sized>) -> (Vec<Uuid>, bool) {
    let (mut ids, mut bytes, mut deliveries, count) =
        (Vec::with_capacity(rows.len()), 0_u64, 0_u64, rows.len());
    for (id, size, delivery_count) in rows {
        bytes += u64::from(size.unsigned_abs());
        deliveries += u64::from(delivery_count.unsigned_abs());
        if (bytes > CHUNK_BYTES || deliveries > CHUNK_DELIVERIES) && !ids.is_empty() {
            break;
        }
        ids.push(id);
    }
    let whole = ids.len() == count;
    (ids, whole)
}

/// The ids of the same millisecond.
fn millisecond(id: Uuid) -> IdRange {
    IdRange::ALL.millisecond(EventId(id).time())
}

/// Those of these sorted events that have a pending delivery.
async fn pending(
    transaction: &DatabaseTransaction,
    project: ProjectId,
    ids: &[Uuid],
) -> Result<HashSet<Uuid>> {
    use pending_delivery::Column;
    let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return Ok(HashSet::new()) };
    let first_ones = pending_delivery::Entity::find().select_only().column(Column::EventId);
    let ids_of_these = IdRange { from: millisecond(*first).from, until: millisecond(*last).until };
    let first_ones =
        within(first_ones, &[(Column::ProjectId, project.0.into())], Column::Id, ids_of_these)
            .distinct();
    let mut found: Vec<Uuid> =
        first_ones.into_tuple().all(transaction).await.map_err(unavailable)?;
    let pending_ids = replay::Entity::find()
        .select_only()
        .column(replay::Column::DeliveryId)
        .filter(replay::Column::EventId.is_in(padded(ids.to_vec())))
        .into_query();
    let replays = pending_delivery::Entity::find().select_only().column(Column::EventId);
    let replays = replays.filter(Column::Id.in_subquery(pending_ids)).distinct();
    found.extend(replays.into_tuple::<Uuid>().all(transaction).await.map_err(unavailable)?);
    let wanted: HashSet<&Uuid> = ids.iter().collect();
    Ok(found.into_iter().filter(|id| wanted.contains(id)).collect())
}

/// Erases the answers of attempts in a range of ids. Finds them by their ids, in any project: there
/// are not many in a millisecond.
async fn erase_answers(
    transaction: &DatabaseTransaction,
    project: ProjectId,
    range: IdRange,
    of: SimpleExpr,
) -> Result<()> {
    use attempt::Column;
    let body = || Expr::col(Alias::new("response_body"));
    let erase = Query::update()
        .table(attempt::Entity)
        .value(Alias::new("response_body"), Vec::<u8>::new())
        .and_where(range.condition(Column::Id))
        .and_where(of_project(Column::ProjectId, project))
        .and_where(of)
        .and_where(body().ne(Vec::<u8>::new()))
        .to_owned();
    transaction.execute(&erase).await.map_err(unavailable)?;
    Ok(())
}

/// Stores how far erasing by age has come.
async fn mark(
    transaction: &DatabaseTransaction,
    project: ProjectId,
    erased_until: Uuid,
) -> Result<()> {
    use payload_erasure::{ActiveModel, Column, Entity};
    let row = ActiveModel { project_id: Set(project.0), erased_until: Set(erased_until) };
    let further =
        OnConflict::column(Column::ProjectId).update_column(Column::ErasedUntil).to_owned();
    Entity::insert(row)
        .on_conflict(further)
        .exec_without_returning(transaction)
        .await
        .map_err(unavailable)?;
    Ok(())
}

async fn note_held(
    transaction: &DatabaseTransaction,
    project: ProjectId,
    held: &HashSet<Uuid>,
) -> Result<()> {
    use payload_hold::{ActiveModel, Column, Entity};
    if held.is_empty() {
        return Ok(());
    }
    let rows = held.iter().map(|id| ActiveModel { project_id: Set(project.0), event_id: Set(*id) });
    let once = OnConflict::columns([Column::ProjectId, Column::EventId]).do_nothing().to_owned();
    let insert = Entity::insert_many(rows).on_conflict(once);
    insert.exec_without_returning(transaction).await.map_err(unavailable)?;
    Ok(())
}

async fn forget_held(
    transaction: &DatabaseTransaction,
    project: ProjectId,
    ids: Vec<Uuid>,
) -> Result<()> {
    use payload_hold::{Column, Entity};
    if ids.is_empty() {
        return Ok(());
    }
    let delete = Entity::delete_many()
        .filter(Column::ProjectId.eq(project.0))
        .filter(Column::EventId.is_in(padded(ids)));
    delete.exec(transaction).await.map_err(unavailable)?;
    Ok(())
}
