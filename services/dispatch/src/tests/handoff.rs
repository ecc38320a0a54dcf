//! The way of jobs from the database to the queue.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use outrider_model::{
    DeliveryId, EndpointId, EventId, Job, JobEvent, JobPayload, OrganizationId, Recipient,
};
use outrider_queue::{NewJob, Queue};

use super::{Bench, bench::until, ledger::Booked};
use crate::{Options, handoff::Handoff, shared::Shared};

/// Makes a job of generation 1 in an epoch.
fn job(bench: &Bench, number: u64, epoch: i64) -> NewJob {
    let now = bench.store.clock().now();
    let (event, endpoint) = (EventId::new(now, number), EndpointId::new(now, number));
    let delivery = DeliveryId::derive(now, event, endpoint, 0);
    let job = Job {
        delivery,
        recipient: Recipient {
            organization: bench.principal.organization,
            project: bench.project.id,
            endpoint,
        },
        attempt: 1,
        generation: 1,
        epoch,
        queued_at: now,
        due_at: None,
        event: Arc::new(JobEvent {
            id: event,
            event_type: "a.b".to_owned(),
            content_type: "application/json".to_owned(),
            headers: [].into(),
            ordering_key: None,
            payload: JobPayload::Inline(Bytes::new()),
            trace: None,
        }),
    };
    NewJob { job: Arc::new(job), endpoint_limit: 64 }
}

/// The queue refuses a job, and the database does not answer when this is recorded. Jobs behind it
/// are queued nevertheless.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_job_holds_up_no_other() {
    let bench = Bench::still(Options::default()).await;
    let ledger = Arc::new(Booked::default());
    let handoff = Handoff::start(Shared {
        ledger: Arc::clone(&ledger) as _,
        ..bench.dispatch.shared.clone()
    });
    let epoch = bench.queue.epochs().await.unwrap()[0];
    handoff.submit(vec![job(&bench, 1, epoch + 1)]).await;
    until("the refused job is being taken back", async || (ledger.unqueued() == 1).then_some(()))
        .await;
    let good = job(&bench, 2, epoch);
    let delivery = good.job.delivery;
    handoff.submit(vec![good]).await;
    let jobs = bench.jobs().await;
    assert_eq!(jobs.iter().map(|job| job.job.delivery).collect::<Vec<_>>(), [delivery]);
    // The next refused job waits for its turn and keeps its room.
    handoff.submit(vec![job(&bench, 3, epoch + 1)]).await;
    assert!(
        bench.queue.inner.read("worker", 1, Duration::from_millis(50)).await.unwrap().is_empty()
    );
    assert_eq!(ledger.unqueued(), 1);
}

/// However many jobs of one organization wait for the queue, those of another find room and go
/// next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_another_organization_find_room_and_go_next() {
    let bench = Bench::still(Options { handoff_queue_bytes: 1 << 20, ..Options::default() }).await;
    let ledger = Arc::new(Booked::default());
    let handoff = Handoff::start(Shared {
        ledger: Arc::clone(&ledger) as _,
        ..bench.dispatch.shared.clone()
    });
    let epoch = bench.queue.epochs().await.unwrap()[0];
    bench.queue.stalled.store(true, Ordering::SeqCst);
    handoff.submit(vec![job(&bench, 1, epoch)]).await;
    until("the first is being queued", async || {
        (!bench.queue.stalled.load(Ordering::SeqCst)).then_some(())
    })
    .await;
    // More jobs than there is room for. Those without room are taken back, which this ledger never
    // completes.
    let flood: Vec<NewJob> = (2..2_000).map(|number| job(&bench, number, epoch)).collect();
    let flooding = tokio::spawn({
        let handoff = handoff.clone();
        async move { handoff.submit(flood).await }
    });
    until("some find no room", async || (ledger.unqueued() > 0).then_some(())).await;
    let mut other = job(&bench, 5_000, epoch);
    let now = bench.store.clock().now();
    Arc::make_mut(&mut other.job).recipient.organization = OrganizationId::new(now, 1);
    handoff.submit(vec![other.clone()]).await;
    bench.queue.go_on.notify_one();
    let mut ahead = 0;
    loop {
        let jobs = bench.jobs().await;
        if let Some(place) = jobs.iter().position(|job| job.job.delivery == other.job.delivery) {
            ahead += place;
            break;
        }
        ahead += jobs.len();
    }
    assert!(ahead <= 1 + 32, "{ahead} were queued before it");
    flooding.abort();
}
