//! Writes events, their idempotency keys and their pending deliveries in one statement.

use std::collections::{HashMap, HashSet};

use outrider_model::{EventId, Timestamp, UsedKey};
use sqlx::{Connection as _, PgConnection, Row};
use uuid::Uuid;

use super::errors::failed;
use crate::{
    history::{
        codec::{count, map_to_json, number, origin_to_json, subscriptions_to_bytes},
        commit_log::logged,
        ledger::keys::{self, Key, KeyClaim, KeyHolder},
    },
    ledger::{Accepted, FoundEvent, LedgerError, NewEvent},
};

/// A key that is held is not claimed. If several claim a key concurrently, the index lets one win,
/// and the others wait for its commit. Events that lost or that exist are not written, nor are
/// their deliveries. LIMIT forces the look-up and the pruning of partitions.
const ACCEPT: &str = concat!(
    "
WITH won AS (
    INSERT INTO idempotency_keys AS held (day, project_id, key, event_id, fingerprint,
        delivery_count, created_at)
    SELECT k.day, k.project_id, k.key, k.event_id, k.fingerprint, k.delivery_count, k.created_at
    FROM UNNEST($1::int4[], $2::uuid[], $3::text[], $4::uuid[], $5::bytea[], $6::int4[], $7::int8[])
        AS k (day, project_id, key, event_id, fingerprint, delivery_count, created_at)
    LEFT JOIN LATERAL (
        SELECT TRUE AS taken FROM idempotency_keys o
        WHERE o.day BETWEEN $8 AND $9 AND o.project_id = k.project_id AND o.key = k.key
            AND o.created_at >= $10 LIMIT 1
    ) o ON TRUE
    WHERE o.taken IS NULL
    ORDER BY k.project_id, k.key COLLATE \"C\", k.day
    ON CONFLICT (project_id, key, day) DO UPDATE
    SET event_id = excluded.event_id, fingerprint = excluded.fingerprint,
        delivery_count = excluded.delivery_count, created_at = excluded.created_at
    WHERE held.created_at < $10
    RETURNING held.event_id
), written AS (
    INSERT INTO events (id, project_id, event_type, content_type, payload, payload_size,
        idempotency_key, headers, metadata, ordering_key, deliver_at, delivery_count, origin,
        created_at)
    SELECT e.id, e.project_id, e.event_type, e.content_type,
        CASE e.place WHEN 0 THEN $38::bytea WHEN 1 THEN $39::bytea WHEN 2 THEN $40::bytea
            WHEN 3 THEN $41::bytea ELSE e.payload END,
        e.payload_size, e.idempotency_key, e.headers, e.metadata, e.ordering_key, e.deliver_at,
        e.delivery_count, e.origin, e.created_at
    FROM UNNEST($11::uuid[], $12::uuid[], $13::text[], $14::text[], $15::bytea[], $16::int4[],
        $17::text[], $18::text[], $19::text[], $20::text[], $21::int8[], $22::int4[], $23::text[],
        $24::int8[], $42::int4[])
        AS e (id, project_id, event_type, content_type, payload, payload_size, idempotency_key,
            headers, metadata, ordering_key, deliver_at, delivery_count, origin, created_at, place)
    WHERE e.idempotency_key IS NULL OR e.id IN (SELECT event_id FROM won)
    ON CONFLICT (id) DO NOTHING
    RETURNING id, project_id
), pending AS (
    INSERT INTO pending_deliveries (id, project_id, event_id, event_type, endpoint_id,
        subscription_ids, replay_number, attempt, due_at, queued_epoch, generation, check_at,
        created_at)
    SELECT d.* FROM UNNEST($25::uuid[], $26::uuid[], $27::uuid[], $28::text[], $29::uuid[],
        $30::bytea[], $31::int4[], $32::int4[], $33::int8[], $34::int8[], $35::int4[], $36::int8[],
        $37::int8[])
        AS d (id, project_id, event_id, event_type, endpoint_id, subscription_ids, replay_number,
            attempt, due_at, queued_epoch, generation, check_at, created_at)
    WHERE d.event_id IN (SELECT id FROM written)
), ",
    logged!("1", "written", "uuid_send(m.id)"),
    "
SELECT event_id, count(*) AS days FROM won GROUP BY event_id"
);

const HOLDERS: &str = "
SELECT k.position, h.event_id, h.fingerprint, h.delivery_count, h.created_at
FROM UNNEST($1::uuid[], $2::text[]) WITH ORDINALITY AS k (project_id, key, position)
CROSS JOIN LATERAL (
    SELECT * FROM idempotency_keys i
    WHERE i.day BETWEEN $3 AND $4 AND i.project_id = k.project_id AND i.key = k.key
        AND i.created_at >= $5
    ORDER BY i.created_at, i.day LIMIT 1
) h";

/// Number of parameters that each carry one payload, which [`ACCEPT`] selects by `place`.
/// PostgreSQL copies the elements of an array twice more, each time into fresh memory. For 1 MB,
/// that took a third of the statement's time.
const SEPARATE: usize = 4;
/// A larger payload gets such a parameter, as long as one is free.
const SEPARATE_BYTES: usize = 32 * 1024;

/// Number of attempts to write a batch whose keys were won on only one side of midnight.
const MIDNIGHT_TRIES: u32 = 3;

pub(super) async fn accept(
    connection: &mut PgConnection,
    batch: &[NewEvent],
    now: Timestamp,
    keys_since: Timestamp,
) -> Result<Vec<Accepted>, LedgerError> {
    let claims = keys::claims(batch, now)?;
    let near_midnight = claims.iter().any(|claim| claim.days().count() > 1);
    let won = if near_midnight {
        write_near_midnight(connection, batch, &claims, keys_since).await?
    } else {
        write(connection, batch, &claims, keys_since).await.map_err(failed)?.into_keys().collect()
    };
    let (winners, losers): (Vec<&KeyClaim<'_>>, Vec<&KeyClaim<'_>>) =
        claims.iter().partition(|claim| won.contains(&claim.holder.event));
    let mut holders: HashMap<Key<'_>, KeyHolder> =
        winners.into_iter().map(|claim| (claim.key, claim.holder)).collect();
    if !losers.is_empty() {
        let days = keys::lookup_days(&claims, keys_since);
        let keys: Vec<Key<'_>> = losers.iter().map(|claim| claim.key).collect();
        holders.extend(read_holders(connection, &keys, days, keys_since).await.map_err(failed)?);
    }
    keys::answers(batch, &holders)
}

/// Near midnight a key has a row in two partitions. A call that wins only one of them must leave
/// nothing behind, so this takes a transaction. The next attempt sees the holder of the other.
async fn write_near_midnight(
    connection: &mut PgConnection,
    batch: &[NewEvent],
    claims: &[KeyClaim<'_>],
    keys_since: Timestamp,
) -> Result<HashSet<EventId>, LedgerError> {
    for _ in 0..MIDNIGHT_TRIES {
        let mut transaction = connection.begin().await.map_err(failed)?;
        let won = match write(&mut transaction, batch, claims, keys_since).await {
            Ok(won) => won,
            Err(error) => {
                transaction.rollback().await.map_err(failed)?;
                return Err(failed(error));
            }
        };
        let is_half_won = claims.iter().any(|claim| {
            won.get(&claim.holder.event)
                .is_some_and(|days| usize::try_from(*days).ok() != Some(claim.days().count()))
        });
        if !is_half_won {
            transaction.commit().await.map_err(failed)?;
            return Ok(won.into_keys().collect());
        }
        transaction.rollback().await.map_err(failed)?;
    }
    Err(LedgerError::Unavailable("idempotency keys are contended at midnight".to_owned()))
}

/// The events that won their key, with the number of days for which they did.
pub(super) async fn write(
    connection: &mut PgConnection,
    batch: &[NewEvent],
    claims: &[KeyClaim<'_>],
    keys_since: Timestamp,
) -> Result<HashMap<EventId, i64>, sqlx::Error> {
    let rows: Vec<(i32, &KeyClaim<'_>)> =
        claims.iter().flat_map(|claim| claim.days().map(move |day| (day, claim))).collect();
    let (first_day, last_day) = keys::lookup_days(claims, keys_since);
    let query = sqlx::query(ACCEPT)
        .bind(column(&rows, |(day, _)| *day))
        .bind(column(&rows, |(_, claim)| claim.key.0.0))
        .bind(column(&rows, |(_, claim)| claim.key.1))
        .bind(column(&rows, |(_, claim)| claim.holder.event.0))
        .bind(rows.iter().map(|(_, claim)| claim.holder.fingerprint.as_slice()).collect::<Vec<_>>())
        .bind(column(&rows, |(_, claim)| number(claim.holder.delivery_count)))
        .bind(column(&rows, |(_, claim)| claim.holder.created_at.0))
        .bind(first_day)
        .bind(last_day)
        .bind(keys_since.0);
    let separate: Vec<usize> = (0..batch.len())
        .filter(|index| batch[*index].payload.len() > SEPARATE_BYTES)
        .take(SEPARATE)
        .collect();
    let query = bind_deliveries(bind_events(query, batch, &separate), batch);
    let query = bind_separate(query, batch, &separate);
    let won = query.fetch_all(connection).await?;
    won.iter()
        .map(|row| Ok((EventId(row.try_get::<Uuid, _>("event_id")?), row.try_get("days")?)))
        .collect()
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// A column of many rows.
fn column<'a, R, T>(rows: &'a [R], value: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// Leaves out the payloads of the events at these indexes: [`bind_separate`] binds them.
fn bind_events<'q>(query: Query<'q>, batch: &[NewEvent], separate: &[usize]) -> Query<'q> {
    let mut payloads = column(batch, |new| &new.payload[..]);
    for index in separate {
        payloads[*index] = &[];
    }
    query
        .bind(column(batch, |new| new.event.id.0))
        .bind(column(batch, |new| new.event.project.0))
        .bind(column(batch, |new| new.event.event_type.as_str()))
        .bind(column(batch, |new| new.event.content_type.as_str()))
        .bind(payloads)
        .bind(column(batch, |new| number(new.event.payload_size)))
        .bind(column(batch, |new| new.event.idempotency_key.as_deref()))
        .bind(column(batch, |new| map_to_json(&new.event.headers)))
        .bind(column(batch, |new| map_to_json(&new.event.metadata)))
        .bind(column(batch, |new| new.event.ordering_key.as_deref()))
        .bind(column(batch, |new| new.event.deliver_at.map(|at| at.0)))
        .bind(column(batch, |new| number(new.event.delivery_count)))
        .bind(column(batch, |new| origin_to_json(&new.event)))
        .bind(column(batch, |new| new.event.created_at.0))
}

fn bind_deliveries<'q>(query: Query<'q>, batch: &[NewEvent]) -> Query<'q> {
    let rows: Vec<_> = batch.iter().flat_map(|new| &new.deliveries).collect();
    query
        .bind(column(&rows, |row| row.id.0))
        .bind(column(&rows, |row| row.project.0))
        .bind(column(&rows, |row| row.event.0))
        .bind(column(&rows, |row| row.event_type.as_str()))
        .bind(column(&rows, |row| row.endpoint.0))
        .bind(column(&rows, |row| subscriptions_to_bytes(&row.subscriptions)))
        .bind(column(&rows, |row| number(row.replay_number)))
        .bind(column(&rows, |row| number(row.attempt)))
        .bind(column(&rows, |row| row.due_at.0))
        .bind(column(&rows, |row| row.queued_epoch))
        .bind(column(&rows, |row| number(row.generation)))
        .bind(column(&rows, |row| row.check_at.0))
        .bind(column(&rows, |row| row.created_at.0))
}

/// Binds the payloads that were left out of the array, and for each event the place of its payload
/// among them, if it has one.
fn bind_separate<'q>(query: Query<'q>, batch: &[NewEvent], separate: &[usize]) -> Query<'q> {
    let mut places: Vec<Option<i32>> = vec![None; batch.len()];
    for (place, index) in (0..).zip(separate) {
        places[*index] = Some(place);
    }
    let payload = |place: usize| separate.get(place).map(|index| &batch[*index].payload[..]);
    (0..SEPARATE).fold(query, |query, place| query.bind(payload(place))).bind(places)
}

pub(super) async fn find(
    connection: &mut PgConnection,
    wanted: &[UsedKey],
    keys_since: Timestamp,
) -> Result<Vec<Option<FoundEvent>>, LedgerError> {
    let keys: Vec<Key<'_>> =
        wanted.iter().map(|wanted| (wanted.project, wanted.key.as_str())).collect();
    let holders = read_holders(connection, &keys, keys::days_since(keys_since), keys_since)
        .await
        .map_err(failed)?;
    Ok(wanted
        .iter()
        .zip(&keys)
        .map(|(wanted, key)| keys::found(wanted, holders.get(key).copied()))
        .collect())
}

async fn read_holders<'a>(
    connection: &mut PgConnection,
    keys: &[Key<'a>],
    (first_day, last_day): (i32, i32),
    keys_since: Timestamp,
) -> Result<HashMap<Key<'a>, KeyHolder>, sqlx::Error> {
    let rows = sqlx::query(HOLDERS)
        .bind(column(keys, |key| key.0.0))
        .bind(column(keys, |key| key.1))
        .bind(first_day)
        .bind(last_day)
        .bind(keys_since.0)
        .fetch_all(connection)
        .await?;
    let mut holders = HashMap::with_capacity(rows.len());
    for row in rows {
        let position: i64 = row.try_get("position")?;
        let Some(key) = usize::try_from(position - 1).ok().and_then(|index| keys.get(index)) else {
            continue;
        };
        let holder = KeyHolder {
            event: EventId(row.try_get("event_id")?),
            fingerprint: row.try_get("fingerprint")?,
            delivery_count: count(row.try_get("delivery_count")?),
            created_at: Timestamp(row.try_get("created_at")?),
        };
        holders.insert(*key, holder);
    }
    Ok(holders)
}
