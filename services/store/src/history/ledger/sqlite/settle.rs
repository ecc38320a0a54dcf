//! Records attempts and applies verdicts: reads the rows once, applies the verdicts in memory, and
//! writes the rows back in a few statements.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use outrider_model::{
    Attempt, DeliveryId, ProjectId, Timestamp,
    delivery::{JobVerdict, Step, step},
};
use sqlx::{Row as _, SqliteConnection};
use uuid::Uuid;

use super::{
    end::{Ended, PendingRow, end},
    errors::failed,
};
use crate::{
    history::{
        chunked::{Bound, Chunked},
        codec::{number, pairs_to_json},
        commit_log::{self, Entries},
        ledger::order::rounds,
    },
    ledger::{LedgerError, Settled},
};

pub(super) static RECORDED: LazyLock<Chunked> =
    LazyLock::new(|| Chunked::new("SELECT id FROM attempts WHERE id IN (", "?", ")"));

pub(super) static FIND: LazyLock<Chunked> =
    LazyLock::new(|| Chunked::new("SELECT * FROM pending_deliveries WHERE id IN (", "?", ")"));

static INSERT_ATTEMPTS: LazyLock<Chunked> = LazyLock::new(|| {
    Chunked::new(
        "INSERT OR IGNORE INTO attempts (id, delivery_id, event_id, endpoint_id, project_id, \
         number, outcome, status_code, started_at, duration_micros, response_headers, \
         response_body, response_truncated, error_message, resent) VALUES ",
        "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        "",
    )
});

pub(super) static UPDATE: LazyLock<Chunked> = LazyLock::new(|| {
    Chunked::new(
        "UPDATE pending_deliveries SET attempt = v.column2, due_at = v.column3, \
         last_status_code = v.column4, queued_epoch = NULL FROM (VALUES ",
        "(?, ?, ?, ?)",
        ") AS v WHERE pending_deliveries.id = v.column1",
    )
});

/// The rows of a batch, and how it changes them.
#[derive(Default)]
struct Outcome {
    rows: HashMap<DeliveryId, PendingRow>,
    changed: Vec<DeliveryId>,
    ended: Vec<Ended>,
}

pub(super) async fn settle(
    connection: &mut SqliteConnection,
    batch: Vec<Settled>,
) -> Result<Vec<bool>, LedgerError> {
    let order: Vec<usize> = rounds(&batch).concat();
    let mut outcome = Outcome::default();
    let ids: Vec<Uuid> = order.iter().map(|index| batch[*index].delivery.0).collect();
    for row in FIND.fetch_on(connection, &ids).await.map_err(failed)? {
        let row = PendingRow::read(&row).map_err(failed)?;
        outcome.rows.insert(row.delivery.id, row);
    }
    let mut log = Log {
        projects: outcome.rows.iter().map(|(id, row)| (*id, row.delivery.project)).collect(),
        ..Log::default()
    };
    let mut applied = vec![false; batch.len()];
    for index in &order {
        let report = &batch[*index];
        let attempt = outcome.rows.get(&report.delivery).map(|row| row.delivery.attempt);
        applied[*index] = outcome.apply(report);
        log.reports.push((report, applied[*index], attempt != Some(report.attempt)));
    }
    let entries = log.entries(connection).await.map_err(failed)?;
    write(connection, &batch, &outcome).await.map_err(failed)?;
    let now = batch.iter().map(|report| report.at).max().unwrap_or(Timestamp(0));
    commit_log::write(connection, entries, now).await.map_err(failed)?;
    Ok(applied)
}

/// Collects the entries for the commit log.
#[derive(Default)]
struct Log<'b> {
    projects: HashMap<DeliveryId, ProjectId>,
    /// The reports in the order in which they are applied, each with whether it applied and whether
    /// its attempt was already over. An attempt that was over may be recorded already; the current
    /// attempt cannot be.
    reports: Vec<(&'b Settled, bool, bool)>,
}

impl Log<'_> {
    /// The reports that applied or have an attempt to record, each attempt once.
    async fn entries(self, connection: &mut SqliteConnection) -> Result<Entries, sqlx::Error> {
        let record = |report: &Settled| report.record.as_ref().map(|record| record.id);
        let late = self
            .reports
            .iter()
            .filter(|(.., late)| *late)
            .filter_map(|(report, ..)| Some(record(report)?.0));
        let recorded = RECORDED.fetch_on(connection, &late.collect::<Vec<_>>()).await?;
        let mut recorded: HashSet<Uuid> =
            recorded.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let moved = self.reports.into_iter().filter_map(|(report, applied, _)| {
            let attempt = record(report).filter(|id| recorded.insert(id.0));
            let project = report.record.as_ref().map(|record| record.project);
            let project = project.or_else(|| self.projects.get(&report.delivery).copied())?;
            (applied || attempt.is_some()).then_some((project, report.delivery, attempt))
        });
        Ok(Entries::deliveries(moved))
    }
}

impl Outcome {
    fn apply(&mut self, report: &Settled) -> bool {
        let Some(row) = self.rows.get_mut(&report.delivery) else { return false };
        let known = JobVerdict {
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

async fn write(
    connection: &mut SqliteConnection,
    batch: &[Settled],
    outcome: &Outcome,
) -> Result<(), sqlx::Error> {
    let attempts: Vec<&Attempt> =
        batch.iter().filter_map(|report| report.record.as_ref()).collect();
    INSERT_ATTEMPTS
        .execute(connection, &attempts, |query, attempt| bind_attempt(query, attempt))
        .await?;
    // A row that changed and then ended is not among the rows any more.
    let changed: Vec<&PendingRow> =
        outcome.changed.iter().filter_map(|id| outcome.rows.get(id)).collect();
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
        .bind(attempt.resent)
}
