//! A worker with fakes around it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use outrider_model::{
    AttemptResult, DeliveryId, DeliveryLimits, Endpoint, EndpointFixed, EndpointId, EndpointSpec,
    EventId, HoldReason, Job, JobEvent, JobPayload, JobReport, JobResult, OrganizationId,
    ProjectId, Receipt, Recipient, SigningSecret, Target, Timestamp,
};
use outrider_queue::LeasedJob;
use outrider_store::EndpointEntry;
use tokio::task::JoinHandle;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use super::fakes::{FakeLookup, FakeQueue, FakeSettlement, Loopback};
use crate::{Given, Options, Worker};

/// The longest that a test waits for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// The time of the fake clock, in microseconds.
pub(crate) const NOW: Timestamp = Timestamp(1_760_000_000_000_000);

static NEXT: AtomicU64 = AtomicU64::new(1);

fn number() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub(crate) struct Bench {
    pub(crate) queue: Arc<FakeQueue>,
    pub(crate) lookup: Arc<FakeLookup>,
    pub(crate) dialer: Arc<Loopback>,
    pub(crate) settlement: Arc<FakeSettlement>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) run: JoinHandle<()>,
}

/// Returns options with short waits, so that tests end soon. Idle connections are kept long, so
/// that a slow machine changes nothing.
pub(crate) fn quick() -> Options {
    Options {
        read_wait: Duration::from_millis(20),
        reclaim_period: Duration::from_millis(50),
        pool_idle_timeout: Duration::from_secs(60),
        ..Options::default()
    }
}

impl Bench {
    pub(crate) fn start(options: Options) -> Self {
        Self::start_with(options, Given::default())
    }

    /// Returns a client configuration that also trusts these certificates.
    pub(crate) fn trusting(extra_roots: Vec<CertificateDer<'static>>) -> Self {
        Self::start_with(quick(), Given { extra_roots, ..Given::default() })
    }

    pub(crate) fn start_with(options: Options, given: Given) -> Self {
        let lookup = Arc::new(FakeLookup::default());
        lookup.now.store(NOW.0, Ordering::SeqCst);
        let (queue, dialer, settlement) =
            (Arc::new(FakeQueue::default()), Arc::new(Loopback::default()), Arc::default());
        let shutdown = CancellationToken::new();
        let settlement: Arc<FakeSettlement> = settlement;
        let worker = Worker::new(
            options,
            given,
            queue.clone(),
            lookup.clone(),
            dialer.clone(),
            settlement.clone(),
        )
        .unwrap();
        let run = tokio::spawn(worker.run(shutdown.clone()));
        Self { queue, lookup, dialer, settlement, shutdown, run }
    }

    pub(crate) fn endpoint(&self, url: &str) -> EndpointId {
        self.endpoint_with(url, |_| {})
    }

    /// Creates an endpoint with a timeout of 10 s and the secrets of [`secrets`], changed by
    /// `change`.
    pub(crate) fn endpoint_with(
        &self,
        url: &str,
        change: impl FnOnce(&mut Endpoint),
    ) -> EndpointId {
        let entry = entry(url, change);
        let id = entry.endpoint.id;
        self.lookup.endpoints.lock().unwrap().insert(id, Arc::new(entry));
        id
    }

    /// Puts a job for this endpoint on the queue.
    pub(crate) fn push(&self, endpoint: EndpointId) -> LeasedJob {
        let job = leased(job(endpoint));
        self.queue.push(job.clone());
        job
    }

    /// Waits for this many reports and returns them. Panics if there are more, or if they do not
    /// arrive in time.
    pub(crate) async fn reports(&self, count: usize) -> Vec<JobReport> {
        until("the reports", || self.settlement.settled.lock().unwrap().len() >= count).await;
        let reports = self.settlement.settled.lock().unwrap().clone();
        assert_eq!(reports.len(), count);
        reports
    }

    /// Returns the only attempt.
    pub(crate) async fn attempt(&self) -> AttemptResult {
        attempted(&self.reports(1).await[0])
    }

    /// Shuts down, waits for the end, and returns the reports.
    pub(crate) async fn stop(self) -> Vec<JobReport> {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.run).await.expect("the worker ends").unwrap();
        self.settlement.settled.lock().unwrap().clone()
    }
}

/// Returns an endpoint as the directory has it.
pub(crate) fn entry(url: &str, change: impl FnOnce(&mut Endpoint)) -> EndpointEntry {
    let mut endpoint = Endpoint::new(
        EndpointId::new(NOW, number()),
        EndpointFixed { project: ProjectId::new(NOW, 1) },
        EndpointSpec {
            target: Target::Http { url: url.to_owned() },
            limits: DeliveryLimits { timeout: Duration::from_secs(10), max_in_flight: 64 },
            ..EndpointSpec::default()
        },
        NOW,
    );
    change(&mut endpoint);
    EndpointEntry {
        organization: OrganizationId::new(NOW, 1),
        endpoint,
        secrets: secrets(),
        is_readable: true,
    }
}

/// Returns the newest secret and the one that it replaces.
pub(crate) fn secrets() -> Vec<SigningSecret> {
    vec![SigningSecret::from_bytes(&[7; 32]).unwrap(), SigningSecret::from_bytes(&[8; 32]).unwrap()]
}

/// Returns a job as dispatch makes it, of project 1 in organization 1.
pub(crate) fn job(endpoint: EndpointId) -> Job {
    job_of(endpoint, 1, 1)
}

/// Returns a job of a project of an organization.
pub(crate) fn job_of(endpoint: EndpointId, organization: u64, project: u64) -> Job {
    let event = EventId::new(NOW, number());
    Job {
        delivery: DeliveryId::derive(NOW, event, endpoint, 0),
        recipient: Recipient {
            organization: OrganizationId::new(NOW, organization),
            project: ProjectId::new(NOW, project),
            endpoint,
        },
        attempt: 1,
        generation: 1,
        epoch: 1,
        queued_at: NOW,
        due_at: Some(NOW),
        event: Arc::new(JobEvent {
            id: event,
            event_type: "user.created".to_owned(),
            content_type: "application/json".to_owned(),
            headers: BTreeMap::new(),
            ordering_key: None,
            payload: JobPayload::Inline(Bytes::from_static(b"{}")),
            trace: None,
        }),
    }
}

/// Returns the job with another payload.
pub(crate) fn with_payload(mut job: Job, payload: JobPayload) -> Job {
    Arc::make_mut(&mut job.event).payload = payload;
    job
}

/// Returns the job as a queue first hands it out.
pub(crate) fn leased(job: Job) -> LeasedJob {
    let receipt = Receipt { shard: 0, entry: format!("{}-0", number()), epoch: job.epoch };
    LeasedJob { job: Arc::new(job), receipt, first: true }
}

pub(crate) fn attempted(report: &JobReport) -> AttemptResult {
    match report.result.clone() {
        JobResult::Attempted(result) => result,
        JobResult::Held(reason) => panic!("held: {reason:?}"),
    }
}

pub(crate) fn held(report: &JobReport) -> HoldReason {
    match &report.result {
        JobResult::Held(reason) => *reason,
        JobResult::Attempted(result) => panic!("attempted: {result:?}"),
    }
}

/// A result as the API shows it.
pub(crate) trait Shown {
    /// The status, or 0.
    fn status(&self) -> u16;
    /// The error, or an empty text.
    fn error(&self) -> &str;
}

impl Shown for AttemptResult {
    fn status(&self) -> u16 {
        self.status_code.unwrap_or(0)
    }

    fn error(&self) -> &str {
        self.error_message.as_deref().unwrap_or_default()
    }
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain for {what}");
}
