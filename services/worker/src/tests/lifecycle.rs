//! Reports while dispatch is unavailable, jobs that are handed out twice, and shutdown.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use outrider_model::{AttemptOutcome, HoldReason};
use outrider_telemetry::catalog::worker::ANSWERS_DROPPED;
use tokio::sync::{Barrier, Notify};

use super::{
    bench::{Bench, Shown, attempted, held, leased, quick, until},
    receiver::{Receiver, Reply},
};
use crate::Options;

fn url(receiver: &Receiver) -> String {
    format!("http://hooks.example:{}/", receiver.port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_dispatch_is_away_nothing_is_sent_twice_and_all_reports_arrive() {
    let receiver = Receiver::start(Reply::status("200 OK")).await;
    let bench = Bench::start(quick());
    let endpoint = bench.endpoint(&url(&receiver));
    bench.settlement.down.store(true, Ordering::SeqCst);
    let mut jobs: Vec<_> = (0..100).map(|_| bench.push(endpoint)).collect();
    until("the requests", || receiver.count() == 100).await;
    until("refused reports", || bench.settlement.refused.load(Ordering::SeqCst) >= 2).await;

    // The queue hands them all out again, one of them with another generation.
    for job in &mut jobs {
        job.first = false;
        job.receipt.entry.push_str("-again");
        bench.queue.abandoned.lock().unwrap().push_back(job.clone());
    }
    let mut newer = jobs[0].job.as_ref().clone();
    newer.generation = 2;
    bench.queue.abandoned.lock().unwrap().push_back(leased(newer));
    until("the redelivered jobs to be read", || bench.queue.abandoned.lock().unwrap().is_empty())
        .await;

    bench.settlement.down.store(false, Ordering::SeqCst);
    let reports = bench.reports(101).await;
    let (first, second): (Vec<_>, Vec<_>) =
        reports.iter().partition(|report| report.job.generation == 1);
    assert_eq!(held(second[0]), HoldReason::Stale);
    assert!(first.iter().all(|report| attempted(report).outcome == AttemptOutcome::Succeeded));
    let deliveries: HashSet<_> = first.iter().map(|report| report.job.delivery).collect();
    assert_eq!((first.len(), deliveries.len(), receiver.count()), (100, 100, 100));
}

#[tokio::test]
async fn reading_stops_when_as_many_jobs_as_may_are_in_hand() {
    let receiver = Receiver::start(Reply::status("200 OK")).await;
    let bench = Bench::start(Options { max_in_flight: 8, max_jobs: 10, ..quick() });
    let endpoint = bench.endpoint(&url(&receiver));
    bench.settlement.down.store(true, Ordering::SeqCst);
    for _ in 0..30 {
        bench.push(endpoint);
    }
    until("the requests", || receiver.count() == 10).await;
    until("refused reports", || bench.settlement.refused.load(Ordering::SeqCst) >= 3).await;
    assert_eq!((receiver.count(), bench.queue.waiting.lock().unwrap().len()), (10, 20));
    bench.settlement.down.store(false, Ordering::SeqCst);
    bench.reports(30).await;
    assert_eq!(receiver.count(), 30);
}

#[tokio::test]
async fn a_shutdown_lets_requests_end_and_gives_back_what_did_not_begin() {
    let told = Arc::new(Notify::new());
    let receiver = Receiver::start(Reply::When(Arc::clone(&told))).await;
    let bench = Bench::start(quick());
    let endpoint = bench.endpoint(&url(&receiver));
    let under_way = bench.push(endpoint);
    until("the request", || receiver.count() == 1).await;
    // Their payloads cannot be fetched, so they do not start.
    bench.lookup.down.store(true, Ordering::SeqCst);
    for _ in 0..5 {
        bench.push(endpoint);
    }
    until("the jobs to be read", || bench.queue.waiting.lock().unwrap().is_empty()).await;
    bench.shutdown.cancel();
    until("what is given back", || bench.settlement.settled.lock().unwrap().len() == 5).await;
    assert!(!bench.run.is_finished(), "a request is under way");
    told.notify_one();
    let reports = bench.stop().await;
    assert!(reports[..5].iter().all(|report| held(report) == HoldReason::Released));
    assert_eq!(reports[5].job.delivery, under_way.job.delivery);
    assert_eq!(attempted(&reports[5]).outcome, AttemptOutcome::Succeeded);
    assert_eq!((reports.len(), receiver.count()), (6, 1));
}

#[tokio::test]
async fn a_shutdown_ends_when_the_drain_does() {
    let receiver = Receiver::start(Reply::Hang).await;
    let bench = Bench::start(Options { drain: Duration::from_millis(200), ..quick() });
    bench.push(bench.endpoint(&url(&receiver)));
    until("the request", || receiver.count() == 1).await;
    let began = std::time::Instant::now();
    assert!(bench.stop().await.is_empty(), "what is under way is left to its lease");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_are_under_way_at_once() {
    let receiver = Receiver::start(Reply::Together(Arc::new(Barrier::new(1_000)))).await;
    let bench = Bench::start(Options { initial_window: 50, ..quick() });
    // Each of 20 endpoints has 50. None answers before all have asked.
    for _ in 0..20 {
        let endpoint = bench.endpoint_with(&url(&receiver), |endpoint| {
            endpoint.spec.limits.timeout = Duration::from_secs(20)
        });
        for _ in 0..50 {
            bench.push(endpoint);
        }
    }
    let reports = bench.reports(1_000).await;
    assert!(reports.iter().all(|report| attempted(report).outcome == AttemptOutcome::Succeeded));
    assert_eq!(receiver.count(), 1_000);
    assert!(bench.settlement.largest.load(Ordering::SeqCst) > 1, "reports travel together");
}

#[tokio::test]
async fn while_dispatch_is_away_large_answers_are_reported_by_their_status_alone() {
    let body = "x".repeat(4 << 10);
    let large = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let receiver = Receiver::start(Reply::Bytes(large)).await;
    // A lone endpoint has an eighth, which is room for two of these answers.
    let bench = Bench::start(Options {
        unreported_bytes: 64 << 10,
        response_kept_bytes: 8 << 10,
        report_streams: 1,
        ..quick()
    });
    let endpoint = bench.endpoint(&url(&receiver));
    let dropped = ANSWERS_DROPPED.get();
    bench.settlement.down.store(true, Ordering::SeqCst);
    (0..40).for_each(|_| drop(bench.push(endpoint)));
    until("the requests", || receiver.count() == 40).await;

    bench.settlement.down.store(false, Ordering::SeqCst);
    let results: Vec<_> = bench.reports(40).await.iter().map(attempted).collect();
    assert!(
        results
            .iter()
            .all(|result| (result.outcome, result.status()) == (AttemptOutcome::Succeeded, 200))
    );
    let (whole, cut): (Vec<_>, Vec<_>) =
        results.iter().partition(|result| !result.response_truncated);
    assert!(
        whole.iter().all(|result| result.response_body == body)
            && cut.iter().all(|result| result.response_body.is_empty())
    );
    // The last requests may be reported after dispatch has returned.
    assert!(whole.len() >= 2 && cut.len() >= 20, "{} whole, {} cut", whole.len(), cut.len());
    let dropped = usize::try_from(ANSWERS_DROPPED.get() - dropped).unwrap();
    assert!(dropped >= cut.len(), "{dropped} are counted");

    // Room is given back with the reports.
    bench.push(endpoint);
    assert_eq!(attempted(&bench.reports(41).await[40]).response_body, body);
}
