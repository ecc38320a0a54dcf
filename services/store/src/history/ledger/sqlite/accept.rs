//! Writes events, their idempotency keys and their pending deliveries. The writer is alone: what it
//! reads stays true until it commits.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use outrider_model::{EventId, PendingDelivery, Timestamp, UsedKey};
use sqlx::{Row, SqliteConnection, SqlitePool};
use uuid::Uuid;

use super::errors::failed;
use crate::{
    history::{
        chunked::{Bound, Chunked},
        codec::{count, map_to_json, number, origin_to_json, subscriptions_to_bytes},
        commit_log,
        ledger::keys::{self, Key, KeyClaim, KeyHolder},
    },
    ledger::{Accepted, FoundEvent, LedgerError, NewEvent},
};

pub(super) const HOLDER: &str =
    "SELECT event_id, fingerprint, delivery_count, created_at FROM idempotency_keys
WHERE project_id = ? AND key = ? AND day BETWEEN ? AND ? AND created_at >= ?
ORDER BY created_at, day LIMIT 1";

/// Replaces only expired rows.
static INSERT_KEYS: LazyLock<Chunked> = LazyLock::new(|| {
    Chunked::new(
        "INSERT OR REPLACE INTO idempotency_keys \
         (day, project_id, key, event_id, fingerprint, delivery_count, created_at) VALUES ",
        "(?, ?, ?, ?, ?, ?, ?)",
        "",
    )
});

pub(super) static EXISTING_EVENTS: LazyLock<Chunked> =
    LazyLock::new(|| Chunked::new("SELECT id FROM events WHERE id IN (", "?", ")"));

static INSERT_EVENTS: LazyLock<Chunked> = LazyLock::new(|| {
    Chunked::new(
        "INSERT INTO events (id, project_id, event_type, content_type, payload, payload_size, \
         idempotency_key, headers, metadata, ordering_key, deliver_at, delivery_count, origin,
             created_at) VALUES ",
        "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        "",
    )
});

static INSERT_PENDING: LazyLock<Chunked> = LazyLock::new(|| {
    Chunked::new(
        "INSERT INTO pending_deliveries (id, project_id, event_id, event_type, endpoint_id, \
         subscription_ids, replay_number, attempt, due_at, queued_epoch, generation, check_at,
             created_at) VALUES ",
        "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        "",
    )
});

pub(super) async fn accept(
    connection: &mut SqliteConnection,
    batch: Vec<NewEvent>,
    now: Timestamp,
    keys_since: Timestamp,
) -> Result<Vec<Accepted>, LedgerError> {
    let claims = keys::claims(&batch, now)?;
    let days = keys::lookup_days(&claims, keys_since);
    let mut holders: HashMap<Key<'_>, KeyHolder> = HashMap::with_capacity(claims.len());
    let mut won: Vec<&KeyClaim<'_>> = Vec::with_capacity(claims.len());
    for claim in &claims {
        let held = holder(connection, claim.key, days, keys_since).await.map_err(failed)?;
        if held.is_none() {
            won.push(claim);
        }
        holders.insert(claim.key, held.unwrap_or(claim.holder));
    }
    write(connection, &batch, &won).await.map_err(failed)?;
    keys::answers(&batch, &holders)
}

/// Bypasses the writer: a key that is being claimed at this moment is not found.
pub(super) async fn find(
    pool: &SqlitePool,
    wanted: &[UsedKey],
    keys_since: Timestamp,
) -> Result<Vec<Option<FoundEvent>>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut found = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        let key = (wanted.project, wanted.key.as_str());
        let held = holder(&mut connection, key, keys::days_since(keys_since), keys_since).await?;
        found.push(keys::found(wanted, held));
    }
    Ok(found)
}

async fn holder(
    connection: &mut SqliteConnection,
    (project, key): Key<'_>,
    (first_day, last_day): (i32, i32),
    keys_since: Timestamp,
) -> Result<Option<KeyHolder>, sqlx::Error> {
    let query = sqlx::query(HOLDER)
        .bind(project.0)
        .bind(key.to_owned())
        .bind(first_day)
        .bind(last_day)
        .bind(keys_since.0);
    let Some(row) = query.fetch_optional(connection).await? else { return Ok(None) };
    let fingerprint: Vec<u8> = row.try_get("fingerprint")?;
    Ok(Some(KeyHolder {
        event: EventId(row.try_get("event_id")?),
        fingerprint: fingerprint.try_into().unwrap_or([0; 32]),
        delivery_count: count(row.try_get("delivery_count")?),
        created_at: Timestamp(row.try_get("created_at")?),
    }))
}

async fn write(
    connection: &mut SqliteConnection,
    batch: &[NewEvent],
    won: &[&KeyClaim<'_>],
) -> Result<(), sqlx::Error> {
    let keys: Vec<(i32, &KeyClaim<'_>)> =
        won.iter().flat_map(|claim| claim.days().map(move |day| (day, *claim))).collect();
    INSERT_KEYS
        .execute(connection, &keys, |query, (day, claim)| bind_key(query, *day, claim))
        .await?;
    let winners: HashSet<EventId> = won.iter().map(|claim| claim.holder.event).collect();
    let mut fresh: Vec<&NewEvent> = batch
        .iter()
        .filter(|new| new.event.idempotency_key.is_none() || winners.contains(&new.event.id))
        .collect();
    let existing = existing(connection, &fresh).await?;
    fresh.retain(|new| !existing.contains(&new.event.id.0));
    INSERT_EVENTS.execute(connection, &fresh, |query, new| bind_event(query, new)).await?;
    let pending: Vec<&PendingDelivery> = fresh.iter().flat_map(|new| &new.deliveries).collect();
    INSERT_PENDING.execute(connection, &pending, |query, row| bind_pending(query, row)).await?;
    let Some(now) = fresh.iter().map(|new| new.event.created_at).max() else { return Ok(()) };
    let logged =
        commit_log::Entries::events(fresh.iter().map(|new| (new.event.project, new.event.id)));
    commit_log::write(connection, logged, now).await
}

/// Events that an earlier call with this batch wrote. They and their deliveries are left as they
/// are now.
async fn existing(
    connection: &mut SqliteConnection,
    events: &[&NewEvent],
) -> Result<HashSet<Uuid>, sqlx::Error> {
    let ids: Vec<Uuid> = events.iter().map(|new| new.event.id.0).collect();
    EXISTING_EVENTS.fetch_on(connection, &ids).await?.iter().map(|row| row.try_get(0)).collect()
}

fn bind_key(query: Bound, day: i32, claim: &KeyClaim<'_>) -> Bound {
    query
        .bind(day)
        .bind(claim.key.0.0)
        .bind(claim.key.1.to_owned())
        .bind(claim.holder.event.0)
        .bind(claim.holder.fingerprint.to_vec())
        .bind(number(claim.holder.delivery_count))
        .bind(claim.holder.created_at.0)
}

fn bind_event(query: Bound, new: &NewEvent) -> Bound {
    let event = &new.event;
    query
        .bind(event.id.0)
        .bind(event.project.0)
        .bind(event.event_type.clone())
        .bind(event.content_type.clone())
        .bind(new.payload.to_vec())
        .bind(number(event.payload_size))
        .bind(event.idempotency_key.clone())
        .bind(map_to_json(&event.headers))
        .bind(map_to_json(&event.metadata))
        .bind(event.ordering_key.clone())
        .bind(event.deliver_at.map(|at| at.0))
        .bind(number(event.delivery_count))
        .bind(origin_to_json(event))
        .bind(event.created_at.0)
}

fn bind_pending(query: Bound, row: &PendingDelivery) -> Bound {
    query
        .bind(row.id.0)
        .bind(row.project.0)
        .bind(row.event.0)
        .bind(row.event_type.clone())
        .bind(row.endpoint.0)
        .bind(subscriptions_to_bytes(&row.subscriptions))
        .bind(number(row.replay_number))
        .bind(number(row.attempt))
        .bind(row.due_at.0)
        .bind(row.queued_epoch)
        .bind(number(row.generation))
        .bind(row.check_at.0)
        .bind(row.created_at.0)
}
