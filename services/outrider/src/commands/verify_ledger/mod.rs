//! `outrider verify-ledger`: checks in the tables that everything that was accepted is accounted
//! for.

mod report;

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use clap::Args;
use outrider_model::{ProjectId, Reason, Timestamp, id::time_of};
use outrider_store::{AuditScope, Store};
use outrider_telemetry::tell_warnings;

use super::configuration::Configuration;
use crate::{
    client::{Failure, input},
    roles,
    stderr::note,
    stdout,
};
use report::LedgerReport;

/// Time between two messages about the progress.
const PROGRESS: Duration = Duration::from_secs(5);
/// A step with fewer rows is not divided further.
const FEWEST_ROWS: u32 = 100;

#[derive(Debug, Args)]
pub struct VerifyLedger {
    #[command(flatten)]
    pub configuration: Configuration,
    /// Only events accepted (or replayed) from this time on: RFC 3339, or an age such as 2h.
    #[arg(long, value_name = "TIME", value_parser = input::time)]
    pub since: Option<prost_types::Timestamp>,
    /// Only events accepted (or replayed) before this time.
    #[arg(long, value_name = "TIME", value_parser = input::time)]
    pub until: Option<prost_types::Timestamp>,
    /// Only this project: prj_….
    #[arg(long = "project", value_name = "PROJECT")]
    pub project: Option<String>,
    /// Maximum number of listed findings. The totals are always complete.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub list: usize,
    /// Rows of a table per step. Fewer are gentler, more are quicker.
    #[arg(long, value_name = "ROWS", default_value_t = 5_000,
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub batch: u32,
    /// Prints JSON for scripts.
    #[arg(long)]
    pub json: bool,
}

/// Audits, prints the result, and fails with exit code 4 if something does not add up.
pub async fn run(options: VerifyLedger) -> Result<(), Failure> {
    let scope = scope(&options)?;
    let VerifyLedger { configuration, list, json, .. } = options;
    let config = configuration.load()?;
    tell_warnings().context("verify-ledger")?;
    // Few connections, and none that could write.
    let mut options = roles::options_without_key(&config)?;
    options.read_only = true;
    (options.database.max_connections, options.database.ledger_connections) = (2, 1);
    let store = Store::connect(&options).await.context("verify-ledger")?;
    store.current().await.context("verify-ledger")?;
    let mut report = LedgerReport::new(list);
    let audited = audit(&store, scope, &mut report).await;
    store.close().await;
    audited?;
    stdout::write(&if json { report.json() } else { report.text() })?;
    match report.verdict() {
        None => Ok(()),
        Some(broken) => Err(Failure::Broken(broken)),
    }
}

fn scope(options: &VerifyLedger) -> Result<AuditScope, Failure> {
    let project = options.project.as_deref().map(str::parse::<ProjectId>).transpose();
    let project = project.map_err(|error| Failure::Usage(format!("--project {error}")))?;
    let time = |time: &prost_types::Timestamp| Timestamp::from_parts(time.seconds, time.nanos);
    if let (Some(since), Some(until)) = (&options.since, &options.until)
        && time(until) <= time(since)
    {
        return Err(Failure::Usage("--until: must be after --since, or nothing is audited".into()));
    }
    let scope = AuditScope { project, rows: options.batch, ..AuditScope::ALL };
    Ok(scope.during(options.since.as_ref().map(time), options.until.as_ref().map(time)))
}

/// Audits history and then the keys. The report contains the finished part even if the audit breaks
/// off.
async fn audit(store: &Store, scope: AuditScope, report: &mut LedgerReport) -> Result<()> {
    let mut progress = Progress(Instant::now());
    let mut rest = scope;
    while rest.from < rest.until {
        match store.audit(rest).await {
            Ok(audited) => {
                rest.from = audited.until;
                report.add(audited);
                progress.say(|| {
                    format!("{} events, up to {}", report.events(), told(time_of(rest.from)))
                });
            }
            // It may be the statement timeout, so the next step is smaller.
            Err(error) if error.reason == Reason::Unavailable && rest.rows > FEWEST_ROWS => {
                rest.rows = (rest.rows / 4).max(FEWEST_ROWS);
                note!(
                    "a step failed ({}): going on with {} rows at a time",
                    error.message,
                    rest.rows
                );
            }
            Err(error) => {
                let at = told(time_of(rest.from));
                return Err(error).with_context(|| {
                    format!("all before {at} was audited; go on with --since {at}")
                });
            }
        }
    }
    let mut place = None;
    loop {
        let audited = store
            .audit_keys(scope, place)
            .await
            .context("history was audited, idempotency keys were not")?;
        place = audited.next.clone();
        report.add_keys(audited);
        progress.say(|| format!("{} idempotency keys", report.keys()));
        if place.is_none() {
            return Ok(());
        }
    }
}

/// Formats a time for people and `--since`, rounded down to the millisecond. Times beyond the last
/// that can be written are limited to it.
fn told(at: Timestamp) -> String {
    const LAST: i64 = 253_402_300_799_999_999;
    let micros = Duration::from_micros(at.0.clamp(0, LAST).unsigned_abs());
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + micros).to_string()
}

/// The time of the last message.
struct Progress(Instant);

impl Progress {
    fn say(&mut self, what: impl FnOnce() -> String) {
        if self.0.elapsed() >= PROGRESS {
            note!("audited: {}", what());
            self.0 = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_they_are_read_and_none_is_too_late() {
        assert_eq!(told(Timestamp(1_700_000_000_123_456)), "2023-11-14T22:13:20.123Z");
        assert_eq!(told(time_of(AuditScope::ALL.until)), "9999-12-31T23:59:59.999Z");
        assert_eq!(told(Timestamp(-1)), "1970-01-01T00:00:00.000Z");
    }
}
