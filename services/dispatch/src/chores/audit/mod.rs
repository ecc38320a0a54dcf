//! The live audit: proves from the tables, a little at a time, that everything accepted is
//! accounted for, and shows the result as metrics.
//!
//! One process of a deployment audits. It audits newly accepted events shortly after they arrive,
//! and repeatedly all of history, because sound rows can be damaged later. Discrepancies are
//! checked again until they are gone.

mod book;

use std::time::{Duration, Instant};

use outrider_model::{
    Result, Timestamp,
    id::{time_of, uuid_bound},
    text::joined,
};
use outrider_store::{AuditScope, AuditTurn, Discrepancy};
use outrider_telemetry::catalog::dispatch::{
    AUDIT_AGE, AUDIT_SECONDS, AUDITED_EVENTS, DISCREPANCIES, UNACCOUNTED,
};
use uuid::Uuid;

use book::Book;

use crate::shared::Shared;

/// How often discrepancies are logged at most.
const LOG_PERIOD: Duration = Duration::from_secs(60);
/// When the work of a period is given up: a database that hangs must not stop the metric of the age
/// from growing.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many findings are checked again in one period.
const RECHECKED: usize = 16;
/// New events are audited for at most this fraction (1/20) of the time, but always for one step.
const SHARE: u32 = 20;

/// The part of dispatch that audits.
pub struct Auditor {
    shared: Shared,
}

/// The progress of the audit.
struct Progress {
    /// Everything before this time is audited.
    mark: Timestamp,
    /// Where the round over all history continues. `None` between two rounds.
    patrol: Option<Uuid>,
    /// When the current round began.
    began: Option<Instant>,
    logged: Option<Instant>,
    book: Book,
}

impl Progress {
    fn from(mark: Timestamp) -> Self {
        Self { mark, patrol: None, began: None, logged: None, book: Book::default() }
    }
}

impl Auditor {
    pub fn new(shared: Shared) -> Self {
        show(&Book::default());
        Self { shared }
    }

    /// Audits until the task is aborted.
    pub async fn run(&self) {
        let mut period = tokio::time::interval(self.shared.options.audit_period);
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut turn, mut progress) = (None, Progress::from(self.now()));
        loop {
            period.tick().await;
            match tokio::time::timeout(PATIENCE, self.work(&mut turn, &mut progress)).await {
                Ok(Ok(true)) => {}
                // The process that audits shows the age.
                Ok(Ok(false)) => progress = Progress::from(self.now()),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the ledger was not audited; the next period goes on")
                }
                Err(_) => {
                    tracing::warn!(
                        "the database does not answer the audit of the ledger; the next period \
                            goes on"
                    );
                    turn = None;
                }
            }
            AUDIT_AGE.set(self.now().since(progress.mark).as_secs_f64());
            show(&progress.book);
            log(&mut progress);
        }
    }

    fn now(&self) -> Timestamp {
        self.shared.store.clock().now()
    }

    /// Does the work of one period. Returns whether this process is the one that audits.
    async fn work(&self, turn: &mut Option<AuditTurn>, progress: &mut Progress) -> Result<bool> {
        let ours = self.take_turn(turn, progress).await?;
        if ours {
            self.round(progress).await?;
        }
        Ok(ours)
    }

    async fn take_turn(
        &self,
        turn: &mut Option<AuditTurn>,
        progress: &mut Progress,
    ) -> Result<bool> {
        if let Some(held) = turn {
            if held.held().await {
                return Ok(true);
            }
            *turn = None;
        }
        *turn = self.shared.store.audit_turn().await?;
        if turn.is_some() {
            // A process that audited before continues where it was.
            progress.mark = progress.mark.min(self.now().minus(self.shared.options.audit_grace));
        }
        Ok(turn.is_some())
    }

    async fn round(&self, progress: &mut Progress) -> Result<()> {
        let options = &self.shared.options;
        let settled = self.now().minus(options.audit_grace);
        for range in progress.book.due_again(RECHECKED) {
            self.step(&mut progress.book, range.0, range.1).await?;
        }
        let begin = Instant::now();
        while progress.mark < settled {
            let until = self
                .step(&mut progress.book, uuid_bound(progress.mark), uuid_bound(settled))
                .await?;
            progress.mark = if until == uuid_bound(settled) { settled } else { time_of(until) };
            if begin.elapsed() >= options.audit_period / SHARE {
                break;
            }
        }
        let due = progress.began.is_none_or(|began| began.elapsed() >= options.audit_repeat);
        if progress.patrol.is_none() && due {
            (progress.patrol, progress.began) = (Some(Uuid::nil()), Some(Instant::now()));
        }
        if let Some(from) = progress.patrol {
            let end = uuid_bound(progress.mark);
            let until =
                if from < end { self.step(&mut progress.book, from, end).await? } else { end };
            progress.patrol = (until < end).then_some(until);
        }
        Ok(())
    }

    /// Audits the first part of a range. Returns where it ended.
    async fn step(&self, book: &mut Book, from: Uuid, until: Uuid) -> Result<Uuid> {
        let scope =
            AuditScope { from, until, rows: self.shared.options.audit_batch, ..AuditScope::ALL };
        let timed = AUDIT_SECONDS.start_timer();
        let audited = self.shared.store.audit(scope).await?;
        timed.observe_duration();
        AUDITED_EVENTS.inc_by(audited.projects.values().map(|project| project.events).sum());
        book.enter(from, &audited);
        Ok(audited.until)
    }
}

fn show(book: &Book) {
    let mut unaccounted = 0;
    for kind in Discrepancy::ALL {
        let count = i64::try_from(book.count(kind)).unwrap_or(i64::MAX);
        DISCREPANCIES.with_label_values(&[kind.name()]).set(count);
        unaccounted += if kind.is_loss() { count } else { 0 };
    }
    UNACCOUNTED.set(unaccounted);
}

/// Logs discrepancies: the projects, the counts and the first ids. Metrics do not name tenants.
fn log(progress: &mut Progress) {
    if progress.book.is_empty() || progress.logged.is_some_and(|last| last.elapsed() < LOG_PERIOD) {
        return;
    }
    progress.logged = Some(Instant::now());
    for (project, kinds, ids) in progress.book.projects() {
        let kinds: Vec<String> =
            kinds.into_iter().map(|(kind, count)| format!("{kind} ({count})")).collect();
        tracing::error!(
            project_id = %project,
            kinds = %joined(&kinds),
            ids = %joined(&ids),
            "the ledger does not add up: `outrider verify-ledger` tells more"
        );
    }
}
