//! Sends reports to dispatch in batches, like a group commit: reports that are ready are sent at
//! once, and the next batch forms while batches are in flight.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use outrider_failpoints::{Point, pass};
use outrider_model::{Error, JobReport, JobResult, Reason};
use outrider_rpc::Settlement;
use outrider_telemetry::Seldom;
use tokio::{sync::mpsc, task::JoinSet};

use super::batches::batches;
use crate::{backoff::Backoff, jobs::UnsettledReport, shared::Shared};

/// While dispatch is away, no batch is settled.
static NOT_SETTLED: Seldom = Seldom::new();
/// While settings differ, every batch may be refused.
static TOO_LARGE: Seldom = Seldom::new();
/// Separate, because a response is lost for good.
static ANSWER_DROPPED: Seldom = Seldom::new();

/// Settles reports.
pub(crate) struct Reporter {
    reports: mpsc::UnboundedReceiver<UnsettledReport>,
    settler: Arc<Settler>,
    streams: usize,
    batch: usize,
    batch_bytes: usize,
}

struct Settler {
    shared: Arc<Shared>,
    settlement: Arc<dyn Settlement>,
    timeout: Duration,
}

impl Reporter {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        reports: mpsc::UnboundedReceiver<UnsettledReport>,
        settlement: Arc<dyn Settlement>,
    ) -> Self {
        let options = &shared.options;
        Self {
            reports,
            streams: options.report_streams,
            batch: options.report_batch,
            batch_bytes: options.report_batch_bytes,
            settler: Arc::new(Settler {
                shared: Arc::clone(shared),
                settlement,
                timeout: options.settle_timeout,
            }),
        }
    }

    /// Settles until dropped.
    pub(crate) async fn run(mut self) {
        let mut under_way = JoinSet::new();
        let mut ready = Vec::with_capacity(self.batch);
        loop {
            tokio::select! {
                _ = under_way.join_next(), if !under_way.is_empty() => {}
                received = self.reports.recv_many(&mut ready, self.batch),
                    if under_way.len() < self.streams => {
                    if received == 0 {
                        return;
                    }
                    for batch in batches(std::mem::take(&mut ready), self.batch_bytes,
                        |report| report.report.size()) {
                        let settler = Arc::clone(&self.settler);
                        // Exceeds the allowed streams only if large reports split this batch.
                        under_way.spawn(async move { settler.settle(batch).await });
                    }
                }
            }
        }
    }
}

impl Settler {
    /// Sends the same batch until it is settled, in halves if dispatch accepts no larger ones. Only
    /// then forgets its jobs. Until then, redelivered jobs are recognized, and all leases are
    /// renewed.
    async fn settle(&self, batch: Vec<UnsettledReport>) {
        // The next part is the last element, so that parts are sent in the order of the reports.
        let mut parts = vec![batch];
        let mut backoff = Backoff::new();
        pass(Point::BeforeReport);
        while let Some(mut part) = parts.pop() {
            let reports = part.iter().map(|report| report.report.clone()).collect();
            let Err(error) = self.try_settle(reports).await else {
                pass(Point::AfterReport);
                let (keys, held): (Vec<_>, Vec<_>) =
                    part.into_iter().map(|r| (r.key, (r.place, r.answer))).unzip();
                self.shared.leases.forget(keys.into_iter().flatten());
                drop(held);
                continue;
            };
            if error.reason != Reason::TooLarge {
                tell_not_settled(&error, part.len());
                parts.push(part);
                backoff.wait().await;
                continue;
            }
            let second = part.split_off(part.len().div_ceil(2));
            let alone = second.is_empty();
            let dropped = alone && part.iter_mut().any(|report| drop_answer(&mut report.report));
            tell_too_large(&error, dropped);
            if alone && !dropped {
                backoff.wait().await;
            }
            parts.extend([second, part].into_iter().filter(|part| !part.is_empty()));
        }
    }

    async fn try_settle(&self, reports: Vec<JobReport>) -> Result<(), Error> {
        match tokio::time::timeout(self.timeout, self.settlement.settle(reports)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::unavailable("dispatch did not answer in time")),
        }
    }
}

fn tell_not_settled(error: &Error, reports: usize) {
    if let Some(times) = NOT_SETTLED.happened() {
        tracing::warn!(%error, reports, times, "reports were not settled; they will be sent again");
    }
}

fn tell_too_large(error: &Error, dropped: bool) {
    let seldom = if dropped { &ANSWER_DROPPED } else { &TOO_LARGE };
    if let Some(times) = seldom.happened() {
        tracing::error!(
            %error,
            times,
            dropped,
            "dispatch takes no reports of this size: worker.response_kept_bytes must be the same \
                in all processes; these go in halves, and \
             one that is too large alone without the answer of its endpoint"
        );
    }
}

/// Drops the response except its status. Otherwise a report that dispatch does not accept would be
/// resent endlessly, and its delivery would not end. Returns whether there was a response to drop.
fn drop_answer(report: &mut JobReport) -> bool {
    let JobResult::Attempted(result) = &mut report.result else { return false };
    let had_any = !result.response_body.is_empty() || !result.response_headers.is_empty();
    result.response_truncated |= had_any;
    (result.response_body, result.response_headers) = (Bytes::new(), Vec::new());
    had_any
}
