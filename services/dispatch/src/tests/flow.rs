//! From accepting to settling, on every path that a delivery can take.

use std::{sync::atomic::Ordering, time::Duration};

use outrider_model::{DeliveryReason, DeliveryStatus, EndpointSpec, EndpointState, HoldReason};
use outrider_queue::Queue;
use outrider_store::Claim;

use super::{Bench, bench::until};
use crate::Options;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_queued_once_and_a_success_ends_its_delivery() {
    let bench = Bench::start().await;
    bench.endpoint(64).await;
    let accepted = bench.publish_when_routed(1).await;
    let jobs = bench.jobs().await;
    assert_eq!(jobs.len(), 1);
    assert_eq!((jobs[0].job.attempt, jobs[0].job.event.event_type.as_str()), (1, "a.b"));
    bench.report(&jobs[0], 204).await;
    let delivery = bench.deliveries().await.remove(0);
    assert_eq!(delivery.event, accepted.id);
    assert_eq!(
        (delivery.status, delivery.reason, delivery.attempt_count),
        (DeliveryStatus::Delivered, DeliveryReason::Succeeded, 1)
    );
    assert!(bench.stays_idle().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_retried_until_the_schedule_is_used_up() {
    let bench = Bench::start().await;
    bench.endpoint(64).await;
    bench.publish_when_routed(1).await;
    for attempt in 1..=3 {
        let jobs = bench.jobs().await;
        assert_eq!(jobs.iter().map(|job| job.job.attempt).collect::<Vec<_>>(), [attempt]);
        bench.report(&jobs[0], 500).await;
    }
    let delivery = bench.deliveries().await.remove(0);
    assert_eq!(
        (delivery.status, delivery.reason),
        (DeliveryStatus::Failed, DeliveryReason::Exhausted)
    );
    assert_eq!((delivery.attempt_count, delivery.last_status_code), (3, Some(500)));
    assert!(bench.stays_idle().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_the_window_waits_in_the_database_and_follows_as_room_is_freed() {
    let bench = Bench::start().await;
    bench.endpoint(2).await;
    bench.publish_when_routed(1).await;
    for _ in 0..9 {
        bench.publish().await;
    }
    let mut sent = 0;
    while sent < 10 {
        let jobs = bench.jobs().await;
        assert!(jobs.len() <= 2, "the window holds two, not {}", jobs.len());
        for job in &jobs {
            bench.report(job, 200).await;
        }
        sent += jobs.len();
    }
    assert!(bench.stays_idle().await);
    assert!(
        bench
            .deliveries()
            .await
            .iter()
            .all(|delivery| delivery.status == DeliveryStatus::Delivered)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_to_an_endpoint_that_does_not_answer_wait_in_the_database() {
    let bench = Bench::start().await;
    bench.endpoint(64).await;
    bench.publish_when_routed(1).await;
    bench.report(&bench.jobs().await[0], 200).await;
    let take = async |count: usize| {
        let mut jobs = Vec::new();
        until("the jobs", async || {
            jobs.extend(bench.jobs().await);
            (jobs.len() >= count).then_some(())
        })
        .await;
        assert_eq!(jobs.len(), count);
        jobs
    };
    for _ in 0..100 {
        bench.publish().await;
    }
    let first = take(64).await;
    for job in &first {
        bench.report(job, 0).await;
    }
    // Until there is an answer, the following deliveries and retries go a few at a time.
    let few = take(8).await;
    assert!(bench.stays_idle().await);
    for job in &few {
        bench.report(job, 200).await;
    }
    assert!(take(16).await.len() == 16, "the window has doubled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_down_delays_and_loses_nothing() {
    let bench = Bench::start().await;
    bench.endpoint(64).await;
    bench.publish_when_routed(1).await;
    bench.report(&bench.jobs().await[0], 200).await;
    bench.queue.down.store(true, Ordering::SeqCst);
    for _ in 0..20 {
        assert_eq!(bench.publish().await.delivery_count, 1);
    }
    bench.queue.down.store(false, Ordering::SeqCst);
    let mut sent = 0;
    while sent < 20 {
        for job in bench.jobs().await {
            bench.report(&job, 200).await;
            sent += 1;
        }
    }
    assert_eq!(sent, 20);
    assert!(bench.stays_idle().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_the_queue_lost_is_queued_again_with_the_next_generation() {
    let bench = Bench::start().await;
    bench.endpoint(64).await;
    bench.publish_when_routed(1).await;
    let lost = bench.jobs().await.remove(0);
    // The queue loses the job before it is settled.
    let done = outrider_queue::Done {
        receipt: lost.receipt.clone(),
        delivery: lost.job.delivery,
        endpoint: lost.job.recipient.endpoint,
        generation: lost.job.generation,
    };
    Queue::finish(&bench.queue.inner, &[done]).await.unwrap();
    let again = bench.jobs().await.remove(0);
    assert_eq!(
        (again.job.attempt, again.job.generation),
        (lost.job.attempt, lost.job.generation + 1)
    );
    bench.report(&again, 200).await;
    assert_eq!(bench.deliveries().await[0].attempt_count, 1);
}

/// While the handoff waits for a slow queue, the jobs behind count as lost, get other jobs, and are
/// delivered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_waited_too_long_for_the_queue_does_not_come_after_the_next_generation() {
    let bench = Bench::start().await;
    let endpoint = bench.endpoint(64).await;
    bench.publish_when_routed(1).await;
    bench.report(&bench.jobs().await[0], 200).await;
    until("jobs go the short way", async || bench.dispatch.handoff.birth_epoch(endpoint.id)).await;
    bench.queue.stalled.store(true, Ordering::SeqCst);
    bench.publish().await;
    let first = bench.jobs().await.remove(0);
    assert!(!bench.queue.stalled.load(Ordering::SeqCst));
    bench.publish().await;
    let again = bench.jobs().await.remove(0);
    assert_eq!((first.job.generation, again.job.generation), (1, 2));
    bench.report(&first, 200).await;
    bench.report(&again, 200).await;
    let queue = &bench.queue.inner;
    until("their places are free", async || {
        (Queue::depth(queue).await.unwrap() == 0).then_some(())
    })
    .await;
    bench.queue.go_on.notify_one();
    assert!(bench.stays_idle().await, "nothing is sent twice");
    assert_eq!(bench.deliveries().await.len(), 3);
}

/// The queue takes jobs and does not answer. The bytes of the jobs that wait behind are bounded,
/// and the rest wait in the database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_the_queue_is_bounded_in_bytes() {
    let hour = Duration::from_secs(3600);
    let bench = Bench::still(Options {
        handoff_queue_bytes: 512 * 1024,
        check_after: hour,
        ..Options::default()
    })
    .await;
    let endpoint = bench.endpoint(64).await.id;
    let epochs = bench.queue.epochs().await.unwrap();
    bench.publish_when_routed(1).await;
    bench.dispatch.handoff.set_epochs(epochs.clone());
    let taken = async |count: usize| {
        let (mut jobs, ledger, now) = (Vec::new(), bench.store.ledger(), bench.store.clock().now());
        until("all are there", async || {
            let claim = Claim { endpoint, limit: 100, epoch: epochs[0] };
            jobs.extend(ledger.claim(&[claim], now.plus(hour), now.plus(hour), 0).await.unwrap());
            (jobs.len() == count).then_some(())
        })
        .await;
    };
    taken(1).await;
    for _ in 0..2 {
        // An endpoint may use an eighth: one job that waits for its answer, and five of 11 KiB
        // behind it. The other five find no room.
        bench.queue.stalled.store(true, Ordering::SeqCst);
        bench.publish().await;
        assert_eq!(bench.jobs().await.len(), 1);
        for _ in 0..10 {
            bench.publish_bytes(vec![b'x'; 10 * 1024].into()).await;
        }
        taken(5).await;
        bench.queue.go_on.notify_one();
        assert_eq!(bench.jobs().await.len(), 5);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_endpoint_holds_its_deliveries_and_a_deleted_one_cancels_them() {
    let bench = Bench::start().await;
    let endpoint = bench.endpoint(64).await;
    bench.publish_when_routed(1).await;
    let job = bench.jobs().await.remove(0);
    let set = async |state| {
        let change = |spec: &mut EndpointSpec| spec.state = state;
        bench
            .store
            .update_endpoint(&bench.principal, bench.project.id, endpoint.id, change)
            .await
            .unwrap();
        until("the directory knows the state", async || {
            let entry = bench.dispatch.shared.directory.endpoint(endpoint.id).await.unwrap();
            entry.filter(|entry| entry.endpoint.spec.state == state)
        })
        .await;
    };
    set(EndpointState::Paused).await;
    bench.hold(&job, HoldReason::EndpointPaused).await;
    bench.publish().await;
    assert!(bench.stays_idle().await);
    assert!(
        bench
            .deliveries()
            .await
            .iter()
            .all(|delivery| delivery.reason == DeliveryReason::EndpointPaused)
    );

    // Deliveries to an endpoint that exists are never canceled, whatever a cache said.
    let scope = outrider_store::CancelScope::Endpoint(endpoint.id);
    let now = bench.store.clock().now();
    let cancelled = bench
        .store
        .ledger()
        .cancel(scope, DeliveryReason::EndpointDeleted, now, 100)
        .await
        .unwrap();
    assert_eq!(cancelled, 0);

    set(EndpointState::Active).await;
    let jobs = until("both are queued", async || Some(bench.jobs().await)).await;
    assert!(
        !jobs.is_empty() && jobs.iter().all(|job| job.job.attempt == 1),
        "holding is no attempt"
    );
    for job in &jobs {
        bench.hold(job, HoldReason::Released).await;
    }

    bench.store.delete_endpoint(&bench.principal, bench.project.id, endpoint.id).await.unwrap();
    until("all are cancelled or held", async || {
        while let Ok(jobs) = Queue::read(&bench.queue.inner, "worker", 100, Duration::ZERO).await {
            if jobs.is_empty() {
                break;
            }
            for job in &jobs {
                bench.hold(job, HoldReason::EndpointDeleted).await;
            }
        }
        let deliveries = bench.deliveries().await;
        let cancelled = |delivery: &outrider_model::Delivery| {
            delivery.reason == DeliveryReason::EndpointDeleted
        };
        (deliveries.len() == 2 && deliveries.iter().all(cancelled)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_success_of_an_earlier_attempt_completes_and_its_retry_is_dropped() {
    let bench = Bench::start().await;
    bench.endpoint(64).await;
    bench.publish_when_routed(1).await;
    let first = bench.jobs().await.remove(0);
    bench.report(&first, 500).await;
    let second = bench.jobs().await.remove(0);
    assert_eq!(second.job.attempt, 2);
    bench.report(&first, 200).await;
    let delivery = bench.deliveries().await.remove(0);
    assert_eq!(delivery.status, DeliveryStatus::Delivered);
    bench.report(&second, 500).await;
    assert_eq!(bench.deliveries().await.remove(0), delivery);
}
