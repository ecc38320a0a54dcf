//! Which jobs are sent, and which are not.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use outrider_model::{
    AttemptOutcome, EndpointId, HoldReason, JobPayload, ReportedJob, endpoint::EndpointState,
};

use super::{
    bench::{Bench, NOW, Shown, attempted, entry, held, job, leased, quick, until, with_payload},
    receiver::{Receiver, Reply},
};
use crate::Options;

async fn receiver() -> (Receiver, String) {
    let receiver = Receiver::start(Reply::status("200 OK")).await;
    let url = format!("http://hooks.example:{}/", receiver.port);
    (receiver, url)
}

#[tokio::test]
async fn paused_and_deleted_endpoints_are_not_sent_to() {
    let (receiver, url) = receiver().await;
    let bench = Bench::start(quick());
    bench.push(bench.endpoint_with(&url, |endpoint| endpoint.spec.state = EndpointState::Paused));
    assert_eq!(held(&bench.reports(1).await[0]), HoldReason::EndpointPaused);
    bench.push(EndpointId::new(NOW, 0));
    assert_eq!(held(&bench.reports(2).await[1]), HoldReason::EndpointDeleted);
    assert_eq!(receiver.count(), 0);
}

/// Jobs behind one that hangs do not wait for their turn once their endpoint is deleted or paused.
#[tokio::test]
async fn jobs_that_wait_are_given_back_when_their_endpoint_is_deleted_or_paused() {
    let receiver = Receiver::start(Reply::Hang).await;
    let url = format!("http://hooks.example:{}/", receiver.port);
    let bench = Bench::start(Options { initial_window: 1, ..quick() });
    let [deleted, paused, open] = [(); 3].map(|()| bench.endpoint(&url));
    for endpoint in [deleted, paused, open] {
        (0..5).for_each(|_| drop(bench.push(endpoint)));
    }
    until("one of each hangs", || receiver.count() == 3).await;
    let as_paused = entry(&url, |endpoint| {
        (endpoint.meta.id, endpoint.spec.state) = (paused, EndpointState::Paused)
    });
    bench.lookup.endpoints.lock().unwrap().remove(&deleted);
    bench.lookup.endpoints.lock().unwrap().insert(paused, Arc::new(as_paused));
    let reports = bench.reports(8).await;
    let reasons = |endpoint: EndpointId| -> Vec<HoldReason> {
        reports.iter().filter(|report| report.job.endpoint == endpoint).map(held).collect()
    };
    assert_eq!(reasons(deleted), [HoldReason::EndpointDeleted; 4]);
    assert_eq!(reasons(paused), [HoldReason::EndpointPaused; 4]);
    assert_eq!(receiver.count(), 3);
}

#[tokio::test]
async fn reports_name_the_job_and_its_receipt() {
    let (_receiver, url) = receiver().await;
    let bench = Bench::start(quick());
    let pushed = bench.push(bench.endpoint(&url));
    let report = bench.reports(1).await.remove(0);
    let job = pushed.job.as_ref();
    let expected = ReportedJob {
        delivery: job.delivery,
        event: job.event.id,
        endpoint: job.recipient.endpoint,
        project: job.recipient.project,
        attempt: 1,
        generation: 1,
    };
    assert_eq!((report.job, report.receipt), (expected, pushed.receipt));
}

#[tokio::test]
async fn redelivered_and_old_jobs_are_checked_first() {
    let (receiver, url) = receiver().await;
    let bench = Bench::start(quick());
    let endpoint = bench.endpoint(&url);
    let mut redelivered = leased(job(endpoint));
    redelivered.first = false;
    let mut old = job(endpoint);
    old.queued_at = old.queued_at.minus(Duration::from_secs(46));
    bench.lookup.past.lock().unwrap().extend([redelivered.job.delivery, old.delivery]);
    bench.queue.abandoned.lock().unwrap().push_back(redelivered);
    bench.queue.push(leased(old));
    let reports = bench.reports(2).await;
    assert!(reports.iter().all(|report| held(report) == HoldReason::Stale));
    assert_eq!(receiver.count(), 0);

    let mut current = leased(job(endpoint));
    current.first = false;
    bench.queue.push(current);
    assert_eq!(attempted(&bench.reports(3).await[2]).outcome, AttemptOutcome::Succeeded);
    let checks = bench.lookup.checks.load(Ordering::SeqCst);
    bench.push(endpoint);
    bench.reports(4).await;
    assert_eq!(bench.lookup.checks.load(Ordering::SeqCst), checks, "a fresh job needs no check");
    assert_eq!(receiver.count(), 2);
}

#[tokio::test]
async fn a_job_of_another_epoch_is_stale() {
    let (receiver, url) = receiver().await;
    let bench = Bench::start(quick());
    let endpoint = bench.endpoint(&url);
    let mut other_epoch = leased(job(endpoint));
    other_epoch.receipt.epoch = 2;
    bench.queue.push(other_epoch);
    assert_eq!(held(&bench.reports(1).await[0]), HoldReason::Stale);
    bench.push(endpoint);
    bench.reports(2).await;
    assert_eq!(receiver.count(), 1);
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_decrypted_is_sent_nothing() {
    let (receiver, url) = receiver().await;
    let bench = Bench::start(quick());
    let mut unreadable = entry(&url, |_| {});
    (unreadable.secrets, unreadable.is_readable) = (Vec::new(), false);
    let id = unreadable.endpoint.id;
    bench.lookup.endpoints.lock().unwrap().insert(id, Arc::new(unreadable));
    bench.push(id);
    let reports = bench.reports(1).await;
    let result = attempted(&reports[0]);
    assert_eq!(result.outcome, AttemptOutcome::ConnectionFailed);
    assert!(result.error().contains("cannot be decrypted"), "{result:?}");
    // It is settled, so others continue.
    bench.push(bench.endpoint(&url));
    assert_eq!(attempted(&bench.reports(2).await[1]).outcome, AttemptOutcome::Succeeded);
    assert_eq!(receiver.count(), 1);
}

#[tokio::test]
async fn payloads_by_reference_are_fetched_within_their_room() {
    let (receiver, url) = receiver().await;
    // Room for one of them at a time, because an endpoint has an eighth.
    let bench = Bench::start(crate::Options { payload_bytes: 640 << 10, ..quick() });
    let endpoint = bench.endpoint(&url);
    let payload = Bytes::from(vec![b'p'; 80 << 10]);
    for _ in 0..10 {
        let job = with_payload(job(endpoint), JobPayload::Reference { size: 80 << 10 });
        bench.lookup.payloads.lock().unwrap().insert(job.event.id, payload.clone());
        bench.queue.push(leased(job));
    }
    let reports = bench.reports(10).await;
    assert!(reports.iter().all(|report| attempted(report).outcome == AttemptOutcome::Succeeded));
    assert!(receiver.requests.lock().unwrap().iter().all(|request| request.body == payload));

    bench.queue.push(leased(with_payload(job(endpoint), JobPayload::Reference { size: 1 })));
    assert_eq!(held(&bench.reports(11).await[10]), HoldReason::Stale);
}

#[tokio::test]
async fn a_job_outlives_a_directory_that_is_away() {
    let (receiver, url) = receiver().await;
    let bench = Bench::start(quick());
    let endpoint = bench.endpoint(&url);
    bench.lookup.down.store(true, Ordering::SeqCst);
    bench.push(endpoint);
    let mut redelivered = leased(job(endpoint));
    redelivered.first = false;
    bench.queue.push(redelivered);
    until("the jobs to be read", || bench.queue.waiting.lock().unwrap().is_empty()).await;
    bench.lookup.down.store(false, Ordering::SeqCst);
    let reports = bench.reports(2).await;
    assert!(reports.iter().all(|report| attempted(report).outcome == AttemptOutcome::Succeeded));
    assert_eq!(receiver.count(), 2);
}

#[tokio::test]
async fn a_queue_that_is_away_for_a_while_is_read_again() {
    let (_receiver, url) = receiver().await;
    let bench = Bench::start(quick());
    bench.queue.down.store(true, Ordering::SeqCst);
    bench.push(bench.endpoint(&url));
    tokio::task::yield_now().await;
    bench.queue.down.store(false, Ordering::SeqCst);
    bench.reports(1).await;
}
