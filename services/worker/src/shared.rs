//! The data that the parts of a worker share.

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::HeaderValue;
use outrider_model::{Error, Recipient, Result, Windows};
use outrider_queue::Queue;
use outrider_rpc::Dialer;
use outrider_telemetry::caught;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    backoff::Complaints,
    exchange::{Client, Destinations},
    jobs::{HeldJob, Key, Leases, Outcome, Started, UnsettledReport, report},
    lookup::Lookup,
    measure,
    options::{self, Given, Options},
    scheduler::{Grant, Scheduler},
};

/// Responses below this size are bounded only by the number of jobs in hand.
const SMALL_ANSWER: usize = 1024;

/// The data that the parts of a worker share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) given: Given,
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) lookup: Arc<dyn Lookup>,
    pub(crate) client: Client,
    pub(crate) destinations: Destinations,
    pub(crate) leases: Leases,
    /// The right to have a job in hand.
    pub(crate) places: Arc<Semaphore>,
    /// The right to send, and the jobs that wait for it.
    pub(crate) slots: Arc<Scheduler<HeldJob>>,
    /// KiB of payloads that did not travel with their jobs, and the jobs that wait for theirs.
    pub(crate) payloads: Arc<Scheduler<Started>>,
    /// KiB of large responses in reports that are not settled.
    pub(crate) answers: Arc<Scheduler<()>>,
    /// The right to read payloads from the database.
    pub(crate) payload_reads: Arc<Semaphore>,
    /// Not bounded by itself, because each report holds a place.
    pub(crate) reports: mpsc::UnboundedSender<UnsettledReport>,
    /// Every task that has a job in hand.
    pub(crate) tasks: TaskTracker,
    /// Limits log lines about jobs that cannot continue.
    pub(crate) complaints: Complaints,
    /// Cancelled at shutdown: nothing new begins.
    pub(crate) shutdown: CancellationToken,
    /// Cancelled at the end: requests in flight are dropped.
    pub(crate) cut: CancellationToken,
}

impl Shared {
    /// Errors: an option is out of its bounds; the error names the field.
    pub(crate) fn new(
        options: Options,
        given: Given,
        queue: Arc<dyn Queue>,
        lookup: Arc<dyn Lookup>,
        dialer: Arc<dyn Dialer>,
        reports: mpsc::UnboundedSender<UnsettledReport>,
    ) -> Result<Self> {
        options::check(&options, &given)?;
        let options = options.resolved(&given);
        let user_agent = HeaderValue::from_str(&given.user_agent);
        let user_agent =
            user_agent.map_err(|_| Error::field("user_agent", "must be visible ASCII"))?;
        let windows = Windows::new(options.windows());
        Ok(Self {
            client: Client::new(&options, &given, dialer)?,
            destinations: Destinations::new(options.destinations_kept, user_agent),
            leases: Leases::new(
                Arc::clone(&queue),
                given.consumer.clone(),
                given.lease,
                options.renew_batch,
            ),
            places: Arc::new(Semaphore::new(options.max_jobs)),
            slots: Scheduler::new(options.max_in_flight, Some(windows)),
            payloads: Scheduler::new(options.payload_units(), None),
            answers: Scheduler::new(options.answer_units(), None),
            payload_reads: Arc::new(Semaphore::new(options.payload_reads)),
            reports,
            tasks: TaskTracker::new(),
            complaints: Complaints::default(),
            shutdown: CancellationToken::new(),
            cut: CancellationToken::new(),
            queue,
            lookup,
            options,
            given,
        })
    }

    /// Reports the outcome of a job in hand.
    pub(crate) fn report(&self, job: HeldJob, mut outcome: Outcome) {
        let key = job.key();
        // Every job in hand has a receipt until the reporter forgets it.
        let Some(receipt) = self.leases.receipt(key) else { return };
        if let Outcome::Held(reason) = &outcome {
            measure::held(*reason);
        }
        tracing::debug!(
            event_id = %job.job.event.id,
            delivery_id = %job.job.delivery,
            attempt = job.job.attempt,
            trace_id = job.job.event.trace.as_ref().and_then(|trace| trace.parent.get(3..35)),
            outcome = %brief(&outcome),
            "job done"
        );
        let answer = self.keep_answer(job.recipient(), &mut outcome);
        self.send(UnsettledReport {
            key: Some(key),
            report: report(&job.job, receipt, outcome),
            place: job.place,
            answer,
        });
    }

    /// Takes room for a large response until its report is settled. While dispatch does not settle,
    /// reports accumulate. A report that finds no room is sent without body and headers.
    fn keep_answer(&self, who: Recipient, outcome: &mut Outcome) -> Option<Grant<()>> {
        let Outcome::Attempted(result, _) = outcome else { return None };
        let headers = result.response_headers.iter().map(|(name, value)| name.len() + value.len());
        let bytes = result.response_body.len() + headers.sum::<usize>();
        if bytes < SMALL_ANSWER {
            return None;
        }
        let granted = self.answers.try_grant(who, u32::try_from(bytes / 1024).unwrap_or(u32::MAX));
        if granted.is_none() {
            measure::answer_dropped();
            (result.response_body, result.response_headers) = (Bytes::new(), Vec::new());
            result.response_truncated = true;
        }
        granted
    }

    pub(crate) fn send(&self, report: UnsettledReport) {
        // The reporter lives as long as anything can report. After it, the lease decides.
        let _ = self.reports.send(report);
    }

    /// Does work on jobs in hand. The work is boxed, because a future is copied into each one
    /// around it. If it panics, the jobs are left to their leases. If their leases were still
    /// renewed, they would never be sent.
    pub(crate) async fn with_jobs(&self, keys: Vec<Key>, work: Pin<Box<impl Future<Output = ()>>>) {
        if self.cut.run_until_cancelled(caught(work)).await == Some(None) {
            tracing::error!(
                jobs = keys.len(),
                "a task panicked; its jobs are left to their leases"
            );
            self.leases.forget(keys);
        }
    }

    /// Waits until no job is in hand.
    pub(crate) async fn places_free(&self) {
        let all = u32::try_from(self.options.max_jobs).unwrap_or(u32::MAX);
        // Never closed.
        let _ = self.places.acquire_many(all).await;
    }
}

fn brief(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Attempted(result, _) => {
            format!("{} {}", result.outcome.name(), result.status_code.unwrap_or(0))
        }
        Outcome::Held(reason) => reason.name().to_owned(),
    }
}
