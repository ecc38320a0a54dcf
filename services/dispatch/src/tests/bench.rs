//! The environment of the tests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use outrider_model::{
    AcceptedEvent, AdmittedEvent, AttemptOutcome, AttemptResult, Delivery, DeliveryId, Endpoint,
    EndpointId, EndpointSpec, Error, HoldReason, JobReport, JobResult, Origin, PageRequest,
    Principal, Project, Receipt, Recipient, ReportedJob, Result, SigningSecret, SubscriptionSpec,
    Target, Timestamp, principal::Actor,
};
use outrider_queue::{Done, EmbeddedQueue, Enqueued, LeasedJob, NewJob, Queue};
use outrider_store::{
    DeliveryFilter, Directory, DirectoryOptions, NewEndpoint, NewProject, NewSubscription, Store,
    testing::TestDatabase,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{Dispatch, Given, Options};

/// Much longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Bench {
    pub dispatch: Arc<Dispatch>,
    pub queue: Arc<Switched>,
    pub store: Store,
    pub principal: Principal,
    pub project: Project,
    shutdown: CancellationToken,
    pub database: TestDatabase,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Bench {
    /// A running dispatch with one project and a schedule of two quick retries.
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    /// The same, with these options except those of the feeder and of retries.
    pub async fn with(options: Options) -> Self {
        let options = Options {
            retry_schedule: vec![Duration::from_millis(50); 2],
            feed_period: Duration::from_millis(50),
            epoch_period: Duration::from_millis(50),
            check_after: Duration::from_millis(300),
            ..options
        };
        let bench = Self::still(options).await;
        let (running, stop) = (Arc::clone(&bench.dispatch), bench.shutdown.clone());
        tokio::spawn(async move { running.run(stop).await });
        bench
    }

    /// The same with exactly these options. It only accepts events and settles, without feeding or
    /// repair.
    pub async fn still(options: Options) -> Self {
        let database = TestDatabase::sqlite();
        let store = database.store().await;
        let organization = store.create_organization(Actor::System, "test").await.unwrap();
        let principal = Principal::system(organization.id);
        let project = store.create_project(&principal, NewProject::default(), None).await.unwrap();
        let directory = Directory::new(
            store.clone(),
            DirectoryOptions { poll: Duration::from_millis(20), ..DirectoryOptions::default() },
        );
        let queue = Arc::new(Switched::new());
        let dispatch = Arc::new(Dispatch::new(
            options,
            Given::default(),
            store.clone(),
            directory.clone(),
            Arc::clone(&queue) as Arc<dyn Queue>,
        ));
        tokio::spawn(async move { directory.run().await });
        Self {
            dispatch,
            queue,
            store,
            principal,
            project,
            shutdown: CancellationToken::new(),
            database,
        }
    }

    /// Creates an endpoint with a subscription to everything.
    pub async fn endpoint(&self, max_in_flight: u32) -> Endpoint {
        let mut spec = EndpointSpec {
            target: Target::Http { url: "https://example.com/".into() },
            ..EndpointSpec::default()
        };
        spec.limits.max_in_flight = max_in_flight;
        let secret = SigningSecret::from_bytes(&[7; 32]).unwrap();
        let endpoint = NewEndpoint { id: None, spec, secret };
        let endpoint = self
            .store
            .create_endpoint(&self.principal, self.project.id, endpoint, None)
            .await
            .unwrap();
        let everything = NewSubscription {
            id: None,
            endpoint: endpoint.id,
            spec: SubscriptionSpec { name: String::new(), event_types: vec!["*".parse().unwrap()] },
        };
        self.store
            .create_subscription(&self.principal, self.project.id, everything, None)
            .await
            .unwrap();
        endpoint
    }

    /// Publishes until the directory knows the subscriptions, so that `deliveries` of them match.
    pub async fn publish_when_routed(&self, deliveries: u32) -> AcceptedEvent {
        until("the subscription is known", async || {
            let accepted = self.publish().await;
            (accepted.delivery_count == deliveries).then_some(accepted)
        })
        .await
    }

    pub async fn publish(&self) -> AcceptedEvent {
        self.publish_bytes("{}".into()).await
    }

    pub async fn publish_bytes(&self, payload: Bytes) -> AcceptedEvent {
        let event = AdmittedEvent {
            organization: self.principal.organization,
            project: self.project.id,
            event_type: "a.b".into(),
            content_type: "application/json".into(),
            payload,
            idempotency: None,
            headers: [].into(),
            metadata: [].into(),
            ordering_key: None,
            deliver_at: None,
            origin: Origin::Api { actor: "test".into() },
            trace: None,
        };
        let results = self.dispatch.intake().accept(vec![event]).await.unwrap();
        results.into_iter().next().unwrap().expect("it is accepted")
    }

    /// Takes jobs as a worker does, at least one.
    pub async fn jobs(&self) -> Vec<LeasedJob> {
        until("a job is queued", async || {
            let jobs =
                self.queue.inner.read("worker", 100, Duration::from_millis(50)).await.unwrap();
            (!jobs.is_empty()).then_some(jobs)
        })
        .await
    }

    /// Whether nothing is queued, after the feeder has had several turns.
    pub async fn stays_idle(&self) -> bool {
        self.queue.inner.read("worker", 100, Duration::from_millis(400)).await.unwrap().is_empty()
    }

    pub async fn report(&self, job: &LeasedJob, status: u16) {
        // A status of 0 stands for a timeout.
        let outcome = match status {
            0 => AttemptOutcome::TimedOut,
            200..300 => AttemptOutcome::Succeeded,
            _ => AttemptOutcome::Rejected,
        };
        let result = AttemptResult {
            outcome,
            status_code: Some(status).filter(|status| *status != 0),
            started_at: Timestamp(1_700_000_000_000_000),
            duration: Duration::from_micros(5),
            response_headers: Vec::new(),
            response_body: Bytes::new(),
            response_truncated: false,
            error_message: None,
            resent: false,
        };
        self.settle(job, JobResult::Attempted(result)).await;
    }

    pub async fn hold(&self, job: &LeasedJob, reason: HoldReason) {
        self.settle(job, JobResult::Held(reason)).await;
    }

    async fn settle(&self, leased: &LeasedJob, result: JobResult) {
        let LeasedJob { job, receipt, .. } = leased;
        let report = JobReport {
            job: ReportedJob {
                delivery: job.delivery,
                event: job.event.id,
                endpoint: job.recipient.endpoint,
                project: job.recipient.project,
                attempt: job.attempt,
                generation: job.generation,
            },
            receipt: receipt.clone(),
            result,
            trace_parent: None,
        };
        self.dispatch.settlement().settle(vec![report]).await.unwrap();
    }

    pub async fn deliveries(&self) -> Vec<Delivery> {
        let all = PageRequest { size: 500, from: None };
        self.store
            .list_deliveries(&self.principal, self.project.id, &DeliveryFilter::default(), all)
            .await
            .unwrap()
            .items
    }
}

/// Waits for a condition.
pub async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The embedded queue behind a switch.
pub struct Switched {
    pub inner: EmbeddedQueue,
    pub down: AtomicBool,
    /// The next jobs are queued, but the caller is answered only after `go_on`.
    pub stalled: AtomicBool,
    pub go_on: Notify,
}

impl Switched {
    fn new() -> Self {
        let inner = EmbeddedQueue::new(&outrider_queue::Options::default());
        Self {
            inner,
            down: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            go_on: Notify::new(),
        }
    }

    fn up(&self) -> Result<&EmbeddedQueue> {
        if self.down.load(Ordering::SeqCst) {
            Err(Error::unavailable("switched off"))
        } else {
            Ok(&self.inner)
        }
    }
}

#[async_trait]
impl Queue for Switched {
    fn shard(&self, endpoint: EndpointId) -> u32 {
        self.inner.shard(endpoint)
    }
    async fn epochs(&self) -> Result<Vec<i64>> {
        self.up()?.epochs().await
    }
    async fn enqueue(&self, jobs: &[NewJob]) -> Result<Vec<Enqueued>> {
        let stalled = self.stalled.swap(false, Ordering::SeqCst);
        let answers = self.up()?.enqueue(jobs).await;
        if stalled {
            self.go_on.notified().await;
        }
        answers
    }
    async fn read(&self, consumer: &str, max: usize, wait: Duration) -> Result<Vec<LeasedJob>> {
        self.up()?.read(consumer, max, wait).await
    }
    async fn reclaim(&self, consumer: &str, max: usize) -> Result<Vec<LeasedJob>> {
        self.up()?.reclaim(consumer, max).await
    }
    async fn renew(&self, consumer: &str, receipts: &[Receipt]) -> Result<Vec<Receipt>> {
        self.up()?.renew(consumer, receipts).await
    }
    async fn finish(&self, done: &[Done]) -> Result<()> {
        self.up()?.finish(done).await
    }
    async fn held(&self, deliveries: &[(EndpointId, DeliveryId)]) -> Result<Vec<Option<u32>>> {
        self.up()?.held(deliveries).await
    }
    async fn room(&self, endpoints: &[(Recipient, u32)]) -> Result<Vec<u32>> {
        self.up()?.room(endpoints).await
    }
    async fn depths(&self) -> Result<Vec<u64>> {
        self.up()?.depths().await
    }
    async fn announce_change(&self) -> Result<()> {
        self.up()?.announce_change().await
    }
    async fn change_announced(&self) {
        self.inner.change_announced().await;
    }
}
