//! The worker and its lifecycle.

use std::sync::Arc;

use outrider_model::Result;
use outrider_queue::Queue;
use outrider_rpc::{Dialer, Settlement};
use outrider_telemetry::essential;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    gauges,
    lookup::Lookup,
    measure,
    options::{Given, Options},
    shared::Shared,
    steps::{Reader, Reporter, turns},
};

/// Reads jobs, signs and sends them, and reports the results.
pub struct Worker {
    shared: Arc<Shared>,
    reporter: Reporter,
}

impl Worker {
    /// Creates a worker from its parts. Errors: a setting is out of its bounds; the error names it.
    pub fn new(
        options: Options,
        given: Given,
        queue: Arc<dyn Queue>,
        lookup: Arc<dyn Lookup>,
        dialer: Arc<dyn Dialer>,
        settlement: Arc<dyn Settlement>,
    ) -> Result<Self> {
        let (reports, received) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new(options, given, queue, lookup, dialer, reports)?);
        measure::expose();
        gauges::expose(&shared);
        let reporter = Reporter::new(&shared, received, settlement);
        Ok(Self { shared, reporter })
    }

    /// Works until `shutdown`, and then drains: reads no more, gives back jobs that have not begun,
    /// and lets requests in flight end and be settled within `Options::drain`. The remaining jobs
    /// are left to their leases.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { shared, reporter } = self;
        let ended = CancellationToken::new();
        // If this is dropped before it returns, everything that it started ends too.
        let _ends = (ended.clone().drop_guard(), shared.cut.clone().drop_guard());
        spawn_housekeeping(&shared, &ended);
        let reporting = tokio::spawn(
            ended.clone().run_until_cancelled_owned(essential("reporter", reporter.run())),
        );
        let stop = shared.shutdown.clone();
        let watch = tokio::spawn(ended.clone().run_until_cancelled_owned(async move {
            shutdown.cancelled().await;
            stop.cancel();
        }));

        tracing::info!(consumer = %shared.given.consumer, "worker started");
        Reader::new(Arc::clone(&shared)).run().await;
        let drain = shared.options.drain;
        let deadline = Instant::now() + drain;
        tracing::info!(jobs = shared.leases.len(), "worker draining");
        turns::close(&shared);
        shared.tasks.close();
        // The last tenth is for the reports of requests that ended just in time.
        if tokio::time::timeout_at(deadline - drain / 10, shared.tasks.wait()).await.is_err() {
            shared.cut.cancel();
            shared.tasks.wait().await;
        }
        let left = tokio::time::timeout_at(deadline, shared.places_free()).await.is_err();
        if left {
            tracing::warn!(
                jobs = shared.leases.len(),
                "worker ended with jobs in hand: their leases will run out"
            );
        } else {
            tracing::info!("worker ended");
        }
        ended.cancel();
        let _ = tokio::join!(reporting, watch);
    }
}

fn spawn_housekeeping(shared: &Arc<Shared>, ended: &CancellationToken) {
    let slots = turns::hand_out_slots(Arc::clone(shared));
    tokio::spawn(ended.clone().run_until_cancelled_owned(essential("slots", slots)));
    let payloads = turns::read_payloads(Arc::clone(shared));
    tokio::spawn(ended.clone().run_until_cancelled_owned(essential("payloads", payloads)));
    let gates = turns::give_gated_back(Arc::clone(shared));
    tokio::spawn(ended.clone().run_until_cancelled_owned(essential("gates", gates)));
    let keeper = Arc::clone(shared);
    let stop = ended.clone();
    tokio::spawn(essential("leases", async move {
        keeper
            .leases
            .keep(keeper.given.renew_period(), stop, |lost| turns::let_go(&keeper, &lost))
            .await;
    }));
    let sweeper = Arc::clone(shared);
    tokio::spawn(ended.clone().run_until_cancelled_owned(essential("sweeper", async move {
        let period = (sweeper.options.pool_idle_timeout / 4).max(std::time::Duration::from_secs(1));
        loop {
            tokio::time::sleep(period).await;
            sweeper.client.sweep();
            sweeper.destinations.sweep();
        }
    })));
}
