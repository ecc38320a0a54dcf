//! Endpoints, projects and organizations do not harm each other.

use std::time::Duration;

use bytes::Bytes;
use outrider_model::{AttemptOutcome, EndpointId, HoldReason, JobPayload, JobReport, JobResult};

use super::{
    bench::{Bench, attempted, held, job_of, leased, quick, until, with_payload},
    receiver::{Receiver, Reply},
};
use crate::{Given, Options};

fn url(receiver: &Receiver) -> String {
    format!("http://hooks.example:{}/", receiver.port)
}

/// Starts a worker with an endpoint that answers.
async fn with_good_endpoint(options: Options) -> (Bench, Receiver, EndpointId) {
    with_good_endpoint_given(options, Given::default()).await
}

async fn with_good_endpoint_given(options: Options, given: Given) -> (Bench, Receiver, EndpointId) {
    let options = Options { drain: Duration::from_millis(300), ..options };
    let bench = Bench::start_with(options, given);
    let receiver = Receiver::start(Reply::status("200 OK")).await;
    let good = bench.endpoint(&url(&receiver));
    (bench, receiver, good)
}

fn push(bench: &Bench, count: usize, endpoint: EndpointId, organization: u64, project: u64) {
    for _ in 0..count {
        bench.queue.push(leased(job_of(endpoint, organization, project)));
    }
}

async fn all_succeed(bench: &Bench, count: usize) {
    assert!(
        bench
            .reports(count)
            .await
            .iter()
            .all(|report| attempted(report).outcome == AttemptOutcome::Succeeded)
    );
}

#[tokio::test]
async fn an_endpoint_that_hangs_has_a_small_window() {
    let (bench, receiver, good) = with_good_endpoint(quick()).await;
    let hanging = Receiver::start(Reply::Hang).await;
    let bad = bench.endpoint(&url(&hanging));
    push(&bench, 1_000, bad, 1, 1);
    until("its window to be used up", || hanging.count() == 8).await;
    push(&bench, 200, good, 1, 1);
    all_succeed(&bench, 200).await;
    assert_eq!((receiver.count(), hanging.count()), (200, 8));
    // Jobs that waited for their turn are given back. Those in flight are left to their leases.
    let reports = bench.stop().await;
    assert_eq!(
        reports[200..].iter().filter(|report| held(report) == HoldReason::Released).count(),
        992
    );
}

#[tokio::test]
async fn endpoints_whose_windows_have_grown_leave_room_when_they_hang() {
    // All have as large a window as they want, so only their share limits them.
    let options = Options { max_in_flight: 64, initial_window: 1_000, ..quick() };
    let (bench, receiver, good) = with_good_endpoint(options).await;
    let hanging = Receiver::start(Reply::Hang).await;
    for number in 0..100 {
        let bad = bench.endpoint(&url(&hanging));
        push(&bench, 20, bad, 1, number);
    }
    until("the jobs to be read", || bench.queue.waiting.lock().unwrap().is_empty()).await;
    until("the share to be used up", || hanging.count() >= 24).await;
    push(&bench, 100, good, 2, 1_000);
    all_succeed(&bench, 100).await;
    assert!(
        hanging.count() <= 32,
        "{} of 64: one organization has more than half",
        hanging.count()
    );
    assert_eq!(receiver.count(), 100);
}

#[tokio::test]
async fn an_endpoint_leaves_room_to_others_of_its_project() {
    let options = Options { max_in_flight: 64, initial_window: 1_000, ..quick() };
    let (bench, receiver, good) = with_good_endpoint(options).await;
    let hanging = Receiver::start(Reply::Hang).await;
    for bad in [bench.endpoint(&url(&hanging)), bench.endpoint(&url(&hanging))] {
        push(&bench, 100, bad, 1, 1);
    }
    until("the shares to be used up", || hanging.count() == 12).await;
    push(&bench, 100, good, 1, 1);
    all_succeed(&bench, 100).await;
    assert_eq!(
        (receiver.count(), hanging.count()),
        (100, 12),
        "an eighth, and half of what is left"
    );
}

#[tokio::test]
async fn a_waiting_job_that_another_worker_took_over_is_let_go() {
    let options = Options { initial_window: 1, ..quick() };
    let given = Given { lease: Duration::from_secs(1), ..Given::default() };
    let (bench, receiver, good) = with_good_endpoint_given(options, given).await;
    let hanging = Receiver::start(Reply::Hang).await;
    let bad = bench.endpoint(&url(&hanging));
    let jobs: Vec<_> = (0..10).map(|_| bench.push(bad)).collect();
    until("one to be sent", || hanging.count() == 1).await;
    bench.queue.taken_over.lock().unwrap().extend(jobs[5..].iter().map(|job| job.receipt.clone()));
    until("a renewal", || bench.queue.renewed.load(std::sync::atomic::Ordering::SeqCst) >= 20)
        .await;
    push(&bench, 1, good, 1, 1);
    all_succeed(&bench, 1).await;
    assert_eq!(receiver.count(), 1);
    // Jobs that still belong to this worker are given back, and the others are not.
    let reports = bench.stop().await;
    assert_eq!(
        reports[1..].iter().filter(|report| held(report) == HoldReason::Released).count(),
        4
    );
}

#[tokio::test]
async fn a_turn_comes_when_a_request_ends() {
    let hanging = Receiver::start(Reply::Hang).await;
    let bench = Bench::start(Options { initial_window: 2, ..quick() });
    let bad = bench.endpoint_with(&url(&hanging), |endpoint| {
        endpoint.spec.limits.timeout = Duration::from_millis(50)
    });
    push(&bench, 10, bad, 1, 1);
    let reports = bench.reports(10).await;
    assert!(reports.iter().all(|report| attempted(report).outcome == AttemptOutcome::TimedOut));
    assert_eq!(hanging.count(), 10);
}

/// Puts jobs of this endpoint on the queue, with payloads of 80 KiB that must be fetched.
fn push_large(bench: &Bench, count: usize, endpoint: EndpointId, organization: u64) {
    for _ in 0..count {
        let job = job_of(endpoint, organization, organization);
        let job = with_payload(job, JobPayload::Reference { size: 80 << 10 });
        let payload = Bytes::from(vec![b'p'; 80 << 10]);
        bench.lookup.payloads.lock().unwrap().insert(job.event.id, payload);
        bench.queue.push(leased(job));
    }
}

#[tokio::test]
async fn large_payloads_leave_room_for_those_of_others() {
    let (bench, receiver, good) =
        with_good_endpoint(Options { payload_bytes: 1 << 20, ..quick() }).await;
    let hanging = Receiver::start(Reply::Hang).await;
    for _ in 0..5 {
        let bad = bench.endpoint(&url(&hanging));
        push_large(&bench, 20, bad, 1);
    }
    until("the share to be used up", || hanging.count() >= 2).await;
    push_large(&bench, 50, good, 2);
    all_succeed(&bench, 50).await;
    assert_eq!(receiver.count(), 50);
    assert!(hanging.count() * 80 <= 512, "one organization has more than half of the bytes");
    let released = |report: &&JobReport| matches!(report.result, JobResult::Held(_));
    assert_eq!(bench.stop().await.iter().filter(released).count() + hanging.count(), 100);
}

#[tokio::test]
async fn an_endpoint_gets_few_large_payloads_until_it_answers() {
    let options = Options { slot_payload_bytes: 20 << 10, ..quick() };
    let (bench, receiver, good) = with_good_endpoint(options).await;
    let hanging = Receiver::start(Reply::Hang).await;
    let bad = bench.endpoint(&url(&hanging));
    // Each takes four of the eight slots that it has at first.
    push_large(&bench, 8, bad, 1);
    until("the window to be used up", || hanging.count() == 2).await;
    push_large(&bench, 50, good, 1);
    all_succeed(&bench, 50).await;
    assert_eq!((receiver.count(), hanging.count()), (50, 2));
    let released = |report: &&JobReport| matches!(report.result, JobResult::Held(_));
    assert_eq!(bench.stop().await.iter().filter(released).count() + hanging.count(), 8);
}
