//! Jobs for tests.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use outrider_model::{
    DeliveryId, EndpointId, EventId, Job, JobEvent, JobPayload, OrganizationId, ProjectId,
    Recipient, Timestamp,
};
use outrider_queue::{Done, Enqueued, LeasedJob, NewJob, Queue};

use super::{backend::Fixture, eventually};

/// Any time serves.
pub const AT: Timestamp = Timestamp(1_700_000_000_000_000);

pub fn project(number: u64) -> ProjectId {
    ProjectId::new(AT, number)
}

impl Fixture {
    /// Returns different endpoints of shard 0 by number.
    pub fn endpoint(&self, number: usize) -> EndpointId {
        (0..)
            .map(|random| EndpointId::new(AT, random))
            .filter(|endpoint| self.queue.shard(*endpoint) == 0)
            .nth(number)
            .expect("endless")
    }

    pub fn epoch(&self, endpoint: EndpointId) -> i64 {
        self.epochs[self.queue.shard(endpoint) as usize]
    }

    /// Makes a job of generation 1 whose endpoint takes 1,000.
    pub fn job(&self, number: u64, endpoint: EndpointId) -> NewJob {
        self.job_of(number, endpoint, 1, 1_000)
    }

    pub fn job_of(
        &self,
        number: u64,
        endpoint: EndpointId,
        generation: u32,
        endpoint_limit: u32,
    ) -> NewJob {
        let event = EventId::new(AT, number);
        let delivery = DeliveryId::derive(AT, event, endpoint, 0);
        let project = project(1);
        let job = Job {
            delivery,
            recipient: Recipient { organization: OrganizationId::new(AT, 1), project, endpoint },
            attempt: 1,
            generation,
            epoch: self.epoch(endpoint),
            queued_at: AT,
            due_at: Some(AT),
            event: Arc::new(JobEvent {
                id: event,
                event_type: "order.paid".to_owned(),
                content_type: "application/json".to_owned(),
                headers: [("x-test".to_owned(), number.to_string())].into(),
                ordering_key: None,
                payload: JobPayload::Inline(Bytes::from(format!("{{\"number\":{number}}}"))),
                trace: None,
            }),
        };
        NewJob { job: Arc::new(job), endpoint_limit }
    }

    /// Makes jobs of one endpoint with these numbers.
    pub fn jobs(&self, endpoint: EndpointId, numbers: std::ops::Range<u64>) -> Vec<NewJob> {
        numbers.map(|number| self.job(number, endpoint)).collect()
    }

    /// Queues jobs, all of which must fit.
    pub async fn put(&self, jobs: &[NewJob]) {
        let results = self.queue.enqueue(jobs).await.expect("enqueued");
        assert!(results.iter().all(|result| *result == Enqueued::Queued), "{results:?}");
    }

    /// Takes exactly this many jobs, with as many reads as needed.
    pub async fn take(&self, consumer: &str, count: usize) -> Vec<LeasedJob> {
        let mut jobs = Vec::new();
        eventually("enough jobs", async || {
            jobs.extend(
                self.queue
                    .read(consumer, count - jobs.len(), Duration::from_secs(1))
                    .await
                    .expect("read"),
            );
            (jobs.len() == count).then_some(())
        })
        .await;
        jobs
    }

    /// Asserts that no job waits.
    pub async fn nothing(&self, consumer: &str) {
        let jobs = self.queue.read(consumer, 100, Duration::from_millis(50)).await.expect("read");
        assert!(jobs.is_empty(), "{jobs:?}");
    }
}

/// Gives the job another payload.
pub fn carry(job: &mut NewJob, payload: Bytes) {
    let job = Arc::make_mut(&mut job.job);
    Arc::make_mut(&mut job.event).payload = JobPayload::Inline(payload);
}

/// Returns the job as finished.
pub fn done(leased: &LeasedJob) -> Done {
    Done {
        receipt: leased.receipt.clone(),
        delivery: leased.job.delivery,
        endpoint: leased.job.recipient.endpoint,
        generation: leased.job.generation,
    }
}

pub fn all_done(leased: &[LeasedJob]) -> Vec<Done> {
    leased.iter().map(done).collect()
}

/// Returns the number of a job.
pub fn number(leased: &LeasedJob) -> u64 {
    leased.job.event.headers["x-test"].parse().expect("a number")
}

pub async fn depth(queue: &dyn Queue) -> u64 {
    queue.depth().await.expect("depth")
}
