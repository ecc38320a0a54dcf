//! The role `dispatch`: makes events durable, routes them to deliveries, feeds the queue, settles
//! attempts and answers questions about all of these.
//!
//! Every outcome passes through here, so every decision about a delivery is made here. It must
//! never send to an endpoint, and never answer OK before the database has committed.

mod accept;
mod audit;
mod batcher;
mod convert;
mod feeder;
mod finisher;
#[doc(hidden)]
pub mod fuzzed;
mod handoff;
mod jobs;
mod line;
mod measure;
mod options;
mod service;
mod settle;
mod sweep;
mod tail;
mod trace;
mod turns;
mod watch;
mod windows;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use outrider_queue::Queue;
use outrider_rpc::{Intake, Settlement, settlement::SettlementServer};
use outrider_store::{Directory, Ledger, Store};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub use options::{Given, Options};

use crate::{
    accept::Accepter, audit::Auditor, feeder::Feeder, finisher::Finisher, handoff::Handoff,
    measure::Measure, settle::Settler, sweep::Sweeper, tail::Tails, watch::Watch,
    windows::QueueWindows,
};

/// What every part of the role works with.
#[derive(Clone)]
struct Shared {
    options: Arc<Options>,
    given: Given,
    store: Store,
    ledger: Arc<dyn Ledger>,
    directory: Directory,
    queue: Arc<dyn Queue>,
    tails: Tails,
    windows: Arc<QueueWindows>,
}

/// The role.
pub struct Dispatch {
    shared: Shared,
    handoff: Handoff,
    accepter: Arc<Accepter>,
    settler: Arc<Settler>,
    feeder: Feeder,
    watch: Watch,
    sweeper: Sweeper,
    measure: Measure,
    auditor: Auditor,
}

impl Dispatch {
    /// Starts the tasks that commit; [`Dispatch::run`] starts those that feed and repair.
    #[must_use]
    pub fn new(
        options: Options,
        given: Given,
        store: Store,
        directory: Directory,
        queue: Arc<dyn Queue>,
    ) -> Self {
        let ledger = store.ledger();
        let tails = Tails::new(&options, store.clone());
        let windows = Arc::new(QueueWindows::new(&options));
        let options = Arc::new(options);
        let shared = Shared { options, given, store, ledger, directory, queue, tails, windows };
        let handoff = Handoff::start(shared.clone());
        let finisher = Finisher::start(shared.clone(), handoff.clone());
        Self {
            accepter: Arc::new(Accepter::start(shared.clone(), handoff.clone())),
            settler: Arc::new(Settler::start(shared.clone(), finisher)),
            feeder: Feeder::new(shared.clone(), handoff.clone()),
            watch: Watch::new(shared.clone(), handoff.clone()),
            sweeper: Sweeper::new(shared.clone()),
            measure: Measure::new(shared.clone(), handoff.clone()),
            auditor: Auditor::new(shared.clone()),
            handoff,
            shared,
        }
    }

    /// For ingest.
    #[must_use]
    pub fn intake(&self) -> Arc<dyn Intake> {
        Arc::clone(&self.accepter) as Arc<dyn Intake>
    }

    /// For workers.
    #[must_use]
    pub fn settlement(&self) -> Arc<dyn Settlement> {
        Arc::clone(&self.settler) as Arc<dyn Settlement>
    }

    /// The public services. Tails end at `shutdown`.
    #[must_use]
    pub fn routes(&self, shutdown: CancellationToken) -> Routes {
        service::routes(self.shared.clone(), self.handoff.clone(), shutdown)
    }

    /// The services for ingest and workers, never to be mounted by a gateway. Streams of reports
    /// end at `shutdown`.
    #[must_use]
    pub fn internal_routes(&self, shutdown: CancellationToken) -> Routes {
        let settlement = SettlementServer::new(self.settlement(), shutdown);
        service::internal_routes(self.intake(), settlement, &self.shared.given)
    }

    /// Feeds the queue, asks it about what is overdue, notices when it was emptied, lets go of what
    /// is kept no longer, audits the ledger, and wakes tails, until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.work() => {}
        }
    }

    async fn work(&self) {
        let Self { feeder, watch, sweeper, measure, auditor, shared, .. } = self;
        tokio::join!(
            feeder.run(),
            watch.run(),
            sweeper.run(),
            measure.run(),
            auditor.run(),
            shared.tails.run()
        );
    }
}
