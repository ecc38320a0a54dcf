//! Attempts recorded and verdicts carried out: the rows are read once, judged in memory, and written back in a few statements.

use std::{collections::HashMap, sync::LazyLock};

use outrider_model::{
    Attempt, DeliveryId,
    delivery::{Report, Step, step},
};
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{
    chunk::{Bound, Chunked},
    end::{Ended, PendingRow, end},
    failed,
};
use crate::ledger::{
    LedgerError, Settled,
    codec::{number, pairs_to_json},
    order::rounds,
};

static FIND: LazyLock<Chunked> = LazyLock::new(|| Chunked::new("SELECT * FROM pending_deliveries WHERE id IN (", "?", ")"));

static INSERT_ATTEMPTS: LazyLock<Chunked> = LazyLock::new(|| {
    Chunked::new(
        "INSERT OR IGNORE INTO attempts (id, delivery_id, event_id, endpoint_id, project_id, number, outcome, status_code, \
         started_at, duration_micros, response_headers, response_body, response_truncated, error_message) VALUES ",
        "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        "",
    )
});

static UPDATE: LazyLock<Chunked> = LazyLock::new(|| {
    Chunked::new(
        "UPDATE pending_deliveries SET attempt = v.column2, due_at = v.column3, last_status_code = v.column4, \
         queued_epoch = NULL FROM (VALUES ",
        "(?, ?, ?, ?)",
        ") AS v WHERE pending_deliveries.id = v.column1",
    )
});

/// What the batch makes of the rows it is about.
#[derive(Default)]
struct Outcome {
    rows: HashMap<DeliveryId, PendingRow>,
    changed: Vec<DeliveryId>,
    ended: Vec<Ended>,
}

pub(super) async fn settle(connection: &mut SqliteConnection, batch: Vec<Settled>) -> Result<Vec<bool>, LedgerError> {
    let rounds = rounds(&batch);
    let mut outcome = Outcome::default();
    let ids: Vec<Uuid> = rounds.first().into_iter().flatten().map(|index| batch[*index].delivery.0).collect();
    for row in FIND.fetch_on(connection, &ids).await.map_err(failed)? {
        let row = PendingRow::read(&row).map_err(failed)?;
        outcome.rows.insert(row.delivery.id, row);
    }
    let mut applied = vec![false; batch.len()];
    for index in rounds.into_iter().flatten() {
        applied[index] = outcome.apply(&batch[index]);
    }
    write(connection, &batch, &outcome).await.map_err(failed)?;
    Ok(applied)
}

impl Outcome {
    fn apply(&mut self, report: &Settled) -> bool {
        let Some(row) = self.rows.get_mut(&report.delivery) else { return false };
        let known = Report {
            attempt: report.attempt,
            generation: report.generation,
            attempted: report.record.is_some(),
            verdict: report.verdict,
        };
        let Some(step) = step(&row.delivery, known) else { return false };
        if let Some(code) = report.record.as_ref().and_then(|record| record.status_code) {
            row.last_status_code = Some(i32::from(code));
        }
        match step {
            Step::Wait { attempt, due_at } => {
                row.delivery.attempt = attempt;
                row.delivery.due_at = due_at;
            }
            Step::End { status, reason, attempt_count } => {
                if let Some(row) = self.rows.remove(&report.delivery) {
                    self.ended.push(Ended { row, status, reason, attempt_count, at: report.at });
                }
                return true;
            }
        }
        self.changed.push(report.delivery);
        true
    }
}

async fn write(connection: &mut SqliteConnection, batch: &[Settled], outcome: &Outcome) -> Result<(), sqlx::Error> {
    let attempts: Vec<&Attempt> = batch.iter().filter_map(|report| report.record.as_ref()).collect();
    INSERT_ATTEMPTS.execute(connection, &attempts, |query, attempt| bind_attempt(query, attempt)).await?;
    // One that changed and then ended is not among the rows any more.
    let changed: Vec<&PendingRow> = outcome.changed.iter().filter_map(|id| outcome.rows.get(id)).collect();
    UPDATE
        .execute(connection, &changed, |query, row| {
            query
                .bind(row.delivery.id.0)
                .bind(number(row.delivery.attempt))
                .bind(row.delivery.due_at.0)
                .bind(row.last_status_code)
        })
        .await?;
    end(connection, &outcome.ended).await
}

fn bind_attempt(query: Bound, attempt: &Attempt) -> Bound {
    query
        .bind(attempt.id.0)
        .bind(attempt.delivery.0)
        .bind(attempt.event.0)
        .bind(attempt.endpoint.0)
        .bind(attempt.project.0)
        .bind(number(attempt.number))
        .bind(attempt.outcome as i16)
        .bind(attempt.status_code.map(i32::from))
        .bind(attempt.started_at.0)
        .bind(i64::try_from(attempt.duration.as_micros()).unwrap_or(i64::MAX))
        .bind(pairs_to_json(&attempt.response_headers))
        .bind(attempt.response_body.clone())
        .bind(attempt.response_truncated)
        .bind(attempt.error_message.clone())
}
