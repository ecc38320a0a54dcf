//! Records attempts and applies verdicts in one statement.

use std::collections::HashSet;

use outrider_model::{Attempt, Verdict};
use sqlx::{Connection as _, PgConnection, Row};
use uuid::Uuid;

use super::errors::failed;
use crate::{
    history::{
        codec::{number, pairs_to_json},
        commit_log::logged,
        ledger::order::rounds,
    },
    ledger::{LedgerError, Settled},
};

/// Locks rows in the order of their ids before anything is written: the parts that write wait for
/// the count of the locked rows. A join with them would compare each row with each, because the
/// planner expects ten elements in an array. The conditions are those of `delivery::step`: action 1
/// ends a delivery (the success of an earlier attempt does so too), 2 retries, 3 holds.
const SETTLE: &str = concat!(
    "
WITH report AS (
    SELECT * FROM UNNEST($1::uuid[], $2::int4[], $3::int4[], $4::int2[], $5::int2[], $6::int2[],
        $7::int8[], $8::bool[], $9::int4[], $10::int8[])
        AS r (id, attempt, generation, action, status, reason, due_at, attempted, status_code, at)
), recorded AS (
    INSERT INTO attempts (id, delivery_id, event_id, endpoint_id, project_id, number, outcome,
        status_code, started_at, duration_micros, response_headers, response_body,
        response_truncated, error_message, resent)
    SELECT a.* FROM UNNEST($11::uuid[], $12::uuid[], $13::uuid[], $14::uuid[], $15::uuid[],
        $16::int4[], $17::int2[], $18::int4[], $19::int8[], $20::int8[], $21::text[], $22::bytea[],
        $23::bool[], $24::text[], $25::bool[])
        AS a (id, delivery_id, event_id, endpoint_id, project_id, number, outcome, status_code,
            started_at, duration_micros, response_headers, response_body, response_truncated,
            error_message, resent)
    ON CONFLICT (id) DO NOTHING
    RETURNING id, delivery_id, project_id
), locked AS (
    SELECT p.id FROM pending_deliveries p WHERE p.id = ANY($1) ORDER BY p.id FOR UPDATE
), ended AS (
    DELETE FROM pending_deliveries p USING report r
    WHERE (SELECT count(*) FROM locked) > 0 AND p.id = r.id AND r.action = 1
        AND (r.attempt = p.attempt OR (r.status = 2 AND r.attempt < p.attempt))
    RETURNING p.*, r.status, r.reason, r.at, r.status_code,
        GREATEST(CASE WHEN r.attempted THEN r.attempt ELSE r.attempt - 1 END, p.attempt - 1)
            AS attempt_count
), history AS (
    INSERT INTO deliveries (id, project_id, event_id, event_type, endpoint_id, subscription_ids,
        replay_number, status, reason, attempt_count, last_status_code, created_at, finished_at)
    SELECT id, project_id, event_id, event_type, endpoint_id, subscription_ids, replay_number,
        status, reason, attempt_count, COALESCE(status_code, last_status_code), created_at, at
    FROM ended
    ON CONFLICT (id) DO NOTHING
), kept AS (
    UPDATE pending_deliveries p
    SET attempt = CASE r.action WHEN 2 THEN p.attempt + 1 ELSE p.attempt END,
        due_at = CASE r.action WHEN 2 THEN r.due_at ELSE p.due_at END,
        queued_epoch = NULL,
        last_status_code = COALESCE(r.status_code, p.last_status_code)
    FROM report r
    WHERE (SELECT count(*) FROM locked) > 0 AND p.id = r.id AND r.attempt = p.attempt
        AND (r.action = 2 OR (r.action = 3 AND r.generation = p.generation))
    RETURNING p.id, p.project_id
), moved AS (
    SELECT COALESCE(c.id, a.delivery_id) AS id, COALESCE(c.project_id, a.project_id) AS project_id,
        COALESCE(a.id, '00000000-0000-0000-0000-000000000000') AS attempt_id
    FROM (SELECT id, project_id FROM ended UNION ALL SELECT id, project_id FROM kept) c
    FULL JOIN recorded a ON a.delivery_id = c.id
), ",
    logged!("2", "moved", "uuid_send(m.id) || uuid_send(m.attempt_id)"),
    "
SELECT id FROM ended UNION ALL SELECT id FROM kept"
);

/// A batch with several reports of a delivery takes one statement for each round of reports, in one
/// transaction.
pub(super) async fn settle(
    connection: &mut PgConnection,
    batch: &[Settled],
) -> Result<Vec<bool>, LedgerError> {
    let rounds = rounds(batch);
    let mut applied = vec![false; batch.len()];
    if let [round] = rounds.as_slice() {
        settle_round(connection, batch, round, &mut applied).await.map_err(failed)?;
    } else {
        let mut transaction = connection.begin().await.map_err(failed)?;
        for round in &rounds {
            if let Err(error) = settle_round(&mut transaction, batch, round, &mut applied).await {
                transaction.rollback().await.map_err(failed)?;
                return Err(failed(error));
            }
        }
        transaction.commit().await.map_err(failed)?;
    }
    Ok(applied)
}

async fn settle_round(
    connection: &mut PgConnection,
    batch: &[Settled],
    round: &[usize],
    applied: &mut [bool],
) -> Result<(), sqlx::Error> {
    let reports: Vec<&Settled> = round.iter().map(|index| &batch[*index]).collect();
    let query = bind_attempts(bind_reports(sqlx::query(SETTLE), &reports), &reports);
    let rows = query.fetch_all(connection).await?;
    let ids: HashSet<Uuid> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    for index in round {
        applied[*index] = ids.contains(&batch[*index].delivery.0);
    }
    Ok(())
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

fn column<'a, R, T>(rows: &[&'a R], value: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(|row| value(row)).collect()
}

fn bind_reports<'q>(query: Query<'q>, reports: &[&Settled]) -> Query<'q> {
    query
        .bind(column(reports, |report| report.delivery.0))
        .bind(column(reports, |report| number(report.attempt)))
        .bind(column(reports, |report| number(report.generation)))
        .bind(column(reports, |report| action(report.verdict)))
        .bind(column(reports, |report| ending(report.verdict).0))
        .bind(column(reports, |report| ending(report.verdict).1))
        .bind(column(reports, |report| match report.verdict {
            Verdict::Retry(due_at) => due_at.0,
            _ => 0,
        }))
        .bind(column(reports, |report| report.record.is_some()))
        .bind(column(reports, |report| {
            report.record.as_ref().and_then(|record| record.status_code).map(i32::from)
        }))
        .bind(column(reports, |report| report.at.0))
}

fn action(verdict: Verdict) -> i16 {
    match verdict {
        Verdict::Ignore => 0,
        Verdict::End(..) => 1,
        Verdict::Retry(_) => 2,
        Verdict::Hold => 3,
    }
}

fn ending(verdict: Verdict) -> (i16, i16) {
    match verdict {
        Verdict::End(status, reason) => (status as i16, reason as i16),
        _ => (0, 0),
    }
}

fn bind_attempts<'q>(query: Query<'q>, reports: &[&Settled]) -> Query<'q> {
    let rows: Vec<&Attempt> = reports.iter().filter_map(|report| report.record.as_ref()).collect();
    query
        .bind(column(&rows, |row| row.id.0))
        .bind(column(&rows, |row| row.delivery.0))
        .bind(column(&rows, |row| row.event.0))
        .bind(column(&rows, |row| row.endpoint.0))
        .bind(column(&rows, |row| row.project.0))
        .bind(column(&rows, |row| number(row.number)))
        .bind(column(&rows, |row| row.outcome as i16))
        .bind(column(&rows, |row| row.status_code.map(i32::from)))
        .bind(column(&rows, |row| row.started_at.0))
        .bind(column(&rows, |row| i64::try_from(row.duration.as_micros()).unwrap_or(i64::MAX)))
        .bind(column(&rows, |row| pairs_to_json(&row.response_headers)))
        .bind(column(&rows, |row| row.response_body.as_slice()))
        .bind(column(&rows, |row| row.response_truncated))
        .bind(column(&rows, |row| row.error_message.as_deref()))
        .bind(column(&rows, |row| row.resent))
}
