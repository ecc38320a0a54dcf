//! The worker put together: what its parts share, and its life.

use std::sync::Arc;

use http::HeaderValue;
use outrider_model::{Error, Result};
use outrider_queue::Queue;
use outrider_rpc::{Dialer, Settlement};
use outrider_telemetry::{caught, essential};
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    backoff::Complaints,
    client::Client,
    destination::Destinations,
    job::{HeldJob, Key, Outcome, report},
    leases::Leases,
    lookup::Lookup,
    measure,
    options::Options,
    reader::Reader,
    reporter::{Report, Reporter},
    slow::SlowEndpoints,
};

/// What the parts of a worker share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) lookup: Arc<dyn Lookup>,
    pub(crate) client: Client,
    pub(crate) destinations: Destinations,
    pub(crate) leases: Leases,
    pub(crate) slow: SlowEndpoints,
    /// The right to send.
    pub(crate) slots: Arc<Semaphore>,
    /// The right to have a job in hand.
    pub(crate) places: Arc<Semaphore>,
    /// KiB of payloads in hand that did not come with their jobs.
    pub(crate) payload_room: Arc<Semaphore>,
    /// Not bounded by itself: each report holds a place.
    pub(crate) reports: mpsc::UnboundedSender<Report>,
    /// Every task that has a job in hand.
    pub(crate) tasks: TaskTracker,
    /// Of jobs that cannot go on.
    pub(crate) complaints: Complaints,
    /// Nothing new begins.
    pub(crate) shutdown: CancellationToken,
    /// What is still under way is dropped.
    pub(crate) cut: CancellationToken,
}

impl Shared {
    /// Reports what became of a job in hand.
    pub(crate) fn report(&self, job: HeldJob, outcome: Outcome) {
        let key = job.key();
        // Every job in hand has a receipt until it is forgotten, which the reporter does.
        let Some(receipt) = self.leases.receipt(key) else { return };
        if let Outcome::Held(reason) = &outcome {
            measure::held(*reason);
        }
        tracing::debug!(
            event_id = %job.ids.event,
            delivery_id = %job.ids.delivery,
            attempt = job.job.attempt,
            trace_id = job.job.traceparent.get(3..35),
            outcome = %brief(&outcome),
            "job done"
        );
        self.send(Report { key: Some(key), report: report(&job.job, receipt, outcome), place: job.place });
    }

    pub(crate) fn send(&self, report: Report) {
        // The reporter lives as long as anybody can report; after it, the lease decides.
        let _ = self.reports.send(report);
    }

    /// Leaves a job to the end of its lease: whoever takes it over then will check it first.
    pub(crate) fn leave(&self, key: Key) {
        self.leases.forget([key]);
    }

    /// Does some work on jobs in hand. Should it panic, they are left to their leases: renewed for ever they would never be sent.
    pub(crate) async fn with_jobs(&self, keys: Vec<Key>, work: impl Future<Output = ()>) {
        if self.cut.run_until_cancelled(caught(work)).await == Some(None) {
            tracing::error!(jobs = keys.len(), "a task panicked; its jobs are left to their leases");
            self.leases.forget(keys);
        }
    }
}

fn brief(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Attempted(result, _) => format!("{} {}", result.outcome().as_str_name(), result.status_code),
        Outcome::Held(reason) => reason.as_str_name().to_owned(),
    }
}

/// Reads jobs, signs, sends and reports.
pub struct Worker {
    shared: Arc<Shared>,
    reporter: Reporter,
}

impl Worker {
    /// A worker on these parts. Errors: an option is out of its bounds; the error names the field.
    pub fn new(
        options: Options,
        queue: Arc<dyn Queue>,
        lookup: Arc<dyn Lookup>,
        dialer: Arc<dyn Dialer>,
        settlement: Arc<dyn Settlement>,
    ) -> Result<Self> {
        options.check()?;
        let user_agent = HeaderValue::from_str(&options.user_agent);
        let user_agent = user_agent.map_err(|_| Error::field("user_agent", "must be visible ASCII"))?;
        let (reports, received) = mpsc::unbounded_channel();
        let shared = Shared {
            client: Client::new(&options, dialer)?,
            destinations: Destinations::new(options.destinations_kept, user_agent),
            leases: Leases::new(Arc::clone(&queue), options.consumer.clone(), options.lease, options.renew_batch),
            slow: SlowEndpoints::new(options.slow_endpoints, options.slow_memory, options.slow_slots(), options.slow_waiting),
            slots: Arc::new(Semaphore::new(options.max_in_flight)),
            places: Arc::new(Semaphore::new(options.report_buffer)),
            payload_room: Arc::new(Semaphore::new(options.payload_units())),
            reports,
            tasks: TaskTracker::new(),
            complaints: Complaints::default(),
            shutdown: CancellationToken::new(),
            cut: CancellationToken::new(),
            queue,
            lookup,
            options,
        };
        let shared = Arc::new(shared);
        measure::expose(&shared);
        let reporter = Reporter::new(&shared, received, settlement);
        Ok(Self { shared, reporter })
    }

    /// Works until `shutdown`, then drains: nothing more is read, what was read but not begun is given back, requests under way
    /// may end within `Options::drain`, and what they reported is settled within it. What is not is left to its lease.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { shared, reporter } = self;
        let ended = CancellationToken::new();
        // Should this be dropped before it returns, all that it started ends too.
        let _ends = (ended.clone().drop_guard(), shared.cut.clone().drop_guard());
        spawn_housekeeping(&shared, &ended);
        let reporting = tokio::spawn(ended.clone().run_until_cancelled_owned(essential("reporter", reporter.run())));
        let stop = shared.shutdown.clone();
        let watch = tokio::spawn(ended.clone().run_until_cancelled_owned(async move {
            shutdown.cancelled().await;
            stop.cancel();
        }));

        tracing::info!(consumer = %shared.options.consumer, "worker started");
        Reader::new(Arc::clone(&shared)).run().await;
        let drain = shared.options.drain;
        let deadline = Instant::now() + drain;
        tracing::info!(jobs = shared.leases.len(), "worker draining");
        shared.tasks.close();
        // The last tenth is for the reports of what ended just in time.
        if tokio::time::timeout_at(deadline - drain / 10, shared.tasks.wait()).await.is_err() {
            shared.cut.cancel();
            shared.tasks.wait().await;
        }
        let left = tokio::time::timeout_at(deadline, shared.places_free()).await.is_err();
        if left {
            tracing::warn!(jobs = shared.leases.len(), "worker ended with jobs in hand: their leases will run out");
        } else {
            tracing::info!("worker ended");
        }
        ended.cancel();
        let _ = tokio::join!(reporting, watch);
    }
}

impl Shared {
    /// Waits until no job is in hand.
    async fn places_free(&self) {
        let all = u32::try_from(self.options.report_buffer).unwrap_or(u32::MAX);
        // Never closed.
        let _ = self.places.acquire_many(all).await;
    }
}

fn spawn_housekeeping(shared: &Arc<Shared>, ended: &CancellationToken) {
    let keeper = Arc::clone(shared);
    let stop = ended.clone();
    tokio::spawn(essential("leases", async move { keeper.leases.keep(keeper.options.renew_period(), stop).await }));
    let sweeper = Arc::clone(shared);
    tokio::spawn(ended.clone().run_until_cancelled_owned(essential("sweeper", async move {
        let period = sweeper.options.pool_idle_timeout / 4;
        sweeper.client.sweep(period.max(std::time::Duration::from_secs(1))).await;
    })));
}
