//! Old deliveries, written straight into PostgreSQL: ten million by way of the product would take an hour.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use outrider_tests::servers::Postgres;

use crate::{servers::DATABASE, world::World};

/// Deliveries of each old event.
const FAN_OUT: u64 = 10;
const DAY_MILLIS: u128 = 86_400_000;

/// Fills today's partitions with deliveries of today, of the same project and endpoint, with an attempt each and an event for ten: the
/// indexes into which new rows go are as deep as they get. Nothing may have been published before.
pub fn write(world: &World, deliveries: u64) -> Result<()> {
    let postgres = world.servers.postgres.as_ref().context("old deliveries are for PostgreSQL")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let midnight = now / DAY_MILLIS * DAY_MILLIS;
    let events = deliveries / FAN_OUT;
    let millis = format!("({midnight} + (i % {events}) * {} / {events})", now - midnight);
    // The first 48 bits are the milliseconds, as in every UUIDv7.
    let id = |salt: &str, number: &str| {
        let hash = format!("md5('{salt}' || {number})");
        format!("(lpad(to_hex({millis}::BIGINT), 12, '0') || '7' || left({hash}, 3) || '8' || right({hash}, 15))::UUID")
    };
    let (event, delivery, attempt) = (id("event", &format!("i % {events}")), id("delivery", "i"), id("attempt", "i"));
    let one = "(SELECT id FROM projects LIMIT 1) AS project, (SELECT id FROM endpoints LIMIT 1) AS endpoint";
    let time = format!("{millis}::BIGINT * 1000");
    fill(
        postgres,
        "events",
        &format!(
            "(id, project_id, event_type, content_type, payload, payload_size, headers, metadata, delivery_count, origin, created_at)
             SELECT {event}, project, 'bench', 'application/json', repeat('x', 1024)::BYTEA, 1024, '{{}}', '{{}}', {FAN_OUT}, '{{}}', {time}
             FROM generate_series(0::BIGINT, {events} - 1) i, (SELECT {one}) one"
        ),
    )?;
    fill(
        postgres,
        "deliveries",
        &format!(
            "(id, project_id, event_id, event_type, endpoint_id, subscription_ids, replay_number, status, reason, attempt_count,
              last_status_code, created_at, finished_at)
             SELECT {delivery}, project, {event}, 'bench', endpoint, uuid_send(project), 0, 2, 1, 1, 200, {time}, {time}
             FROM generate_series(0::BIGINT, {deliveries} - 1) i, (SELECT {one}) one"
        ),
    )?;
    fill(
        postgres,
        "attempts",
        &format!(
            "(id, delivery_id, event_id, endpoint_id, project_id, number, outcome, status_code, started_at, duration_micros,
              response_headers, response_body, response_truncated)
             SELECT {attempt}, {delivery}, {event}, endpoint, project, 1, 1, 200, {time}, 900, '{{}}', 'answer 200', FALSE
             FROM generate_series(0::BIGINT, {deliveries} - 1) i, (SELECT {one}) one"
        ),
    )?;
    postgres.query(DATABASE, "CHECKPOINT").map(drop)
}

/// Puts a filled table in the place of today's empty partition: its indexes are built in one go.
fn fill(postgres: &Postgres, table: &str, rows: &str) -> Result<()> {
    let today = "(SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD'))";
    let name = postgres.query(DATABASE, &format!("SELECT '{table}_p' || {today}"))?.trim().to_owned();
    let bounds =
        postgres.query(DATABASE, &format!("SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = '{name}'"))?;
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
    postgres.query(DATABASE, &format!("VACUUM (ANALYZE) {name}")).map(drop)
}
