//! Writes old deliveries directly into PostgreSQL, because ten million would take an hour through
//! the product.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use outrider_tests::servers::Postgres;
use tokio::task::block_in_place;

use crate::{servers::DATABASE, world::World};

/// The number of deliveries of each old event, each to another endpoint.
const FAN_OUT: usize = 10;
const DAY_MILLIS: u128 = 86_400_000;

/// Fills today's partitions with deliveries of today, of the same project and its first ten
/// endpoints (which are made, where there are fewer), with an attempt each and an event for ten, as
/// if they had been delivered: the indexes into which new rows go are as deep as they get, and the
/// ledger adds up. The number is rounded up to tens. Nothing may have been published before.
pub async fn write(world: &mut World, deliveries: u64) -> Result<()> {
    world.idle_endpoints(FAN_OUT.saturating_sub(world.endpoints)).await?;
    let postgres = world.servers.postgres.as_ref().context("old deliveries are for PostgreSQL")?;
    block_in_place(|| fill(postgres, deliveries.div_ceil(FAN_OUT as u64)))
}

fn fill(postgres: &Postgres, events: u64) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let midnight = now / DAY_MILLIS * DAY_MILLIS;
    // The first 48 bits are the milliseconds, as in every UUIDv7; a delivery and its attempt share
    // those of their event.
    let of_events = format!(
        "(id, project_id, event_type, content_type, payload, payload_size, headers, metadata, \
            delivery_count, origin, created_at)
         SELECT (lpad(to_hex(at), 12, '0') || '7' || left(hash, 3) || '8' || right(hash, \
         15))::UUID, project, 'bench', 'application/json',
            repeat('x', 1024)::BYTEA, 1024, '{{}}', '{{}}', {FAN_OUT}, '{{}}', at * 1000
         FROM (SELECT i, {midnight} + i * {} / {events} AS at, md5(i::TEXT) AS hash
            FROM generate_series(0::BIGINT, {events} - 1) AS i) AS each, (SELECT id AS project \
            FROM projects LIMIT 1) AS one",
        now - midnight
    );
    // The last digit is the place of the endpoint among the first ten. Delivered (2), for it
    // succeeded (5).
    let of_deliveries = format!(
        "(id, project_id, event_id, event_type, endpoint_id, subscription_ids, replay_number, \
            status, reason, attempt_count,
          last_status_code, created_at, finished_at)
         SELECT (left(event::TEXT, 35) || place)::UUID, project, event, 'bench', endpoints[place + \
         1],
            uuid_send(subscriptions[place + 1]), 0, 2, 5, 1, 200, at, at + 2000
         FROM (SELECT id AS event, project_id AS project, created_at AS at, generate_series(0, \
         {FAN_OUT} - 1) AS place FROM events) AS each,
            (SELECT array_agg(endpoint_id) AS endpoints, array_agg(id) AS subscriptions FROM \
            (SELECT DISTINCT ON (endpoint_id)
                endpoint_id, id FROM subscriptions ORDER BY endpoint_id, id LIMIT {FAN_OUT}) AS \
                firsts) AS one"
    );
    let of_attempts = "(id, delivery_id, event_id, endpoint_id, project_id, number, outcome, \
        status_code, started_at, duration_micros,
          response_headers, response_body, response_truncated)
         SELECT overlay(id::TEXT PLACING '9' FROM 20)::UUID, id, event_id, endpoint_id, \
         project_id, 1, 1, 200, created_at + 1000, 900,
            '{}', 'answer 200', FALSE
         FROM deliveries";
    for (table, rows) in
        [("events", of_events.as_str()), ("deliveries", &of_deliveries), ("attempts", of_attempts)]
    {
        fill_partition(postgres, table, rows)?;
    }
    postgres.query(DATABASE, "CHECKPOINT").map(drop)
}

/// Replaces today's empty partition by a filled table, whose indexes are built at once.
fn fill_partition(postgres: &Postgres, table: &str, rows: &str) -> Result<()> {
    let begin = Instant::now();
    let today = "(SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD'))";
    let name =
        postgres.query(DATABASE, &format!("SELECT '{table}_p' || {today}"))?.trim().to_owned();
    let bounds = postgres.query(
        DATABASE,
        &format!("SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = '{name}'"),
    )?;
    let bounds = bounds.trim();
    postgres.query(
        DATABASE,
        &format!(
            "SET maintenance_work_mem = '512MB';
             ALTER TABLE {table} DETACH PARTITION {name};
             DROP TABLE {name};
             CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING STORAGE);
             INSERT INTO {name} {rows};
             ALTER TABLE {table} ATTACH PARTITION {name} {bounds}"
        ),
    )?;
    postgres.query(DATABASE, &format!("VACUUM (ANALYZE) {name}"))?;
    if begin.elapsed().as_secs() >= 10 {
        eprintln!("  old {table} are written after {} s", begin.elapsed().as_secs());
    }
    Ok(())
}
