//! The role: its parts and its lifecycle.

use std::sync::Arc;

use outrider_queue::Queue;
use outrider_rpc::{Intake, Settlement, settlement::SettlementServer};
use outrider_store::{Directory, Store};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    accepting::EventIntake,
    chores::{Auditor, Meter, QueueWatch, Sweeper},
    feeding::Feeder,
    handoff::Handoff,
    options::{Given, Options},
    service,
    settling::{Finisher, Settler},
    shared::Shared,
    tail::Tails,
    windows::QueueWindows,
};

/// The role.
pub struct Dispatch {
    pub(crate) shared: Shared,
    pub(crate) handoff: Handoff,
    intake: Arc<EventIntake>,
    settler: Arc<Settler>,
    feeder: Feeder,
    watch: QueueWatch,
    sweeper: Sweeper,
    meter: Meter,
    auditor: Auditor,
}

impl Dispatch {
    /// Starts the tasks that commit. [`Dispatch::run`] starts those that feed and repair.
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
            intake: Arc::new(EventIntake::start(shared.clone(), handoff.clone())),
            settler: Arc::new(Settler::start(shared.clone(), finisher)),
            feeder: Feeder::new(shared.clone(), handoff.clone()),
            watch: QueueWatch::new(shared.clone(), handoff.clone()),
            sweeper: Sweeper::new(shared.clone()),
            meter: Meter::new(shared.clone(), handoff.clone()),
            auditor: Auditor::new(shared.clone()),
            handoff,
            shared,
        }
    }

    /// The interface for ingest.
    #[must_use]
    pub fn intake(&self) -> Arc<dyn Intake> {
        Arc::clone(&self.intake) as Arc<dyn Intake>
    }

    /// The interface for workers.
    #[must_use]
    pub fn settlement(&self) -> Arc<dyn Settlement> {
        Arc::clone(&self.settler) as Arc<dyn Settlement>
    }

    /// The public services. Tails end at `shutdown`.
    #[must_use]
    pub fn routes(&self, shutdown: CancellationToken) -> Routes {
        service::routes(self.shared.clone(), self.handoff.clone(), shutdown)
    }

    /// The services for ingest and workers, which a gateway must never mount. Streams of reports
    /// end at `shutdown`.
    #[must_use]
    pub fn internal_routes(&self, shutdown: CancellationToken) -> Routes {
        let settlement = SettlementServer::new(self.settlement(), shutdown);
        service::internal_routes(self.intake(), settlement, &self.shared.given)
    }

    /// Feeds the queue, asks it about overdue deliveries, notices when it was emptied, removes old
    /// data, audits the ledger and wakes tails, until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.work() => {}
        }
    }

    async fn work(&self) {
        let Self { feeder, watch, sweeper, meter, auditor, shared, .. } = self;
        tokio::join!(
            feeder.run(),
            watch.run(),
            sweeper.run(),
            meter.run(),
            auditor.run(),
            shared.tails.run()
        );
    }
}
