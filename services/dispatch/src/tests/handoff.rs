//! How jobs go from the database to the queue.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use outrider_model::{DeliveryId, EndpointId, EventId, Recipient};
use outrider_proto::internal::Job;
use outrider_queue::{NewJob, Queue};

use super::{Bench, bench::until, ledger::Booked};
use crate::{Options, Shared, handoff::Handoff};

/// A job of generation 1 in an epoch.
fn job(bench: &Bench, number: u64, epoch: i64) -> NewJob {
    let now = bench.store.clock().now();
    let (event, endpoint) = (EventId::new(now, number), EndpointId::new(now, number));
    let delivery = DeliveryId::derive(now, event, endpoint, 0);
    let recipient = Recipient { organization: bench.principal.organization, project: bench.project.id, endpoint };
    let job = Job {
        version: 1,
        delivery_id: Bytes::copy_from_slice(delivery.as_bytes()),
        event_id: Bytes::copy_from_slice(event.as_bytes()),
        endpoint_id: Bytes::copy_from_slice(endpoint.as_bytes()),
        project_id: Bytes::copy_from_slice(bench.project.id.as_bytes()),
        attempt: 1,
        generation: 1,
        epoch,
        queued_at: now.0,
        ..Job::default()
    };
    NewJob { job: Arc::new(job), delivery, recipient, endpoint_limit: 64 }
}

/// The queue refuses a job, and the database does not answer when that is to be written down: jobs behind it are queued all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_job_holds_up_no_other() {
    let bench = Bench::still(Options::default()).await;
    let ledger = Arc::new(Booked::default());
    let handoff = Handoff::start(Shared { ledger: Arc::clone(&ledger) as _, ..bench.dispatch.shared.clone() });
    let epoch = bench.queue.epochs().await.unwrap()[0];
    handoff.submit(vec![job(&bench, 1, epoch + 1)]).await;
    until("the refused job is being taken back", async || (ledger.unqueued() == 1).then_some(())).await;
    let good = job(&bench, 2, epoch);
    let delivery = good.delivery;
    handoff.submit(vec![good]).await;
    let jobs = bench.jobs().await;
    assert_eq!(jobs.iter().map(|job| &*job.job.delivery_id).collect::<Vec<_>>(), [delivery.as_bytes()]);
    // The next refused one waits for its turn, with its room.
    handoff.submit(vec![job(&bench, 3, epoch + 1)]).await;
    assert!(bench.queue.inner.read("worker", 1, Duration::from_millis(50)).await.unwrap().is_empty());
    assert_eq!(ledger.unqueued(), 1);
}
