//! Endpoints that hang do not hurt the others.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use outrider_model::EventId;
use outrider_proto::{
    dispatch::AttemptOutcome,
    internal::{HoldReason, Job, job::Body},
};

use super::{
    bench::{Bench, attempted, held, job, leased, quick, until},
    receiver::{Receiver, Reply},
};
use crate::Options;

fn url(receiver: &Receiver) -> String {
    format!("http://hooks.example:{}/", receiver.port)
}

/// A worker of 20 slots with an endpoint that is known to be slow.
async fn with_slow_endpoint(slow_waiting: usize) -> (Bench, outrider_model::EndpointId, Receiver) {
    let hanging = Receiver::start(Reply::Hang).await;
    let bench = Bench::start(Options { max_in_flight: 20, slow_waiting, drain: Duration::from_millis(300), ..quick() });
    let slow = bench.endpoint_with(&url(&hanging), |endpoint| endpoint.timeout = Duration::from_millis(100));
    bench.push(slow);
    assert_eq!(bench.attempt().await.outcome(), AttemptOutcome::TimedOut);
    // From now on it hangs for long.
    let longer = {
        let mut endpoints = bench.lookup.endpoints.lock().unwrap();
        let entry = endpoints.remove(&slow).unwrap();
        let mut endpoint = entry.endpoint.clone();
        endpoint.timeout = Duration::from_secs(30);
        outrider_store::EndpointEntry { endpoint, secrets: super::bench::secrets() }
    };
    bench.lookup.endpoints.lock().unwrap().insert(slow, longer.into());
    (bench, slow, hanging)
}

#[tokio::test]
async fn slow_endpoints_take_no_more_than_their_share() {
    let (bench, slow, hanging) = with_slow_endpoint(100).await;
    for _ in 0..50 {
        bench.push(slow);
    }
    until("the share to be used up", || hanging.count() == 11).await;
    let receiver = Receiver::start(Reply::status("200 OK")).await;
    let good = bench.endpoint(&url(&receiver));
    for _ in 0..200 {
        bench.push(good);
    }
    let reports = bench.reports(201).await;
    assert!(reports[1..].iter().all(|report| attempted(report).outcome() == AttemptOutcome::Succeeded));
    assert_eq!((receiver.count(), hanging.count()), (200, 11), "one before it was known, and half of 20");

    // Those that waited for their turn are given back; those under way are left to their leases.
    let reports = bench.stop().await;
    assert_eq!(reports[201..].iter().filter(|report| held(report) == HoldReason::Released).count(), 40);
}

#[tokio::test]
async fn jobs_of_slow_endpoints_beyond_the_line_are_left_in_the_queue() {
    let (bench, slow, hanging) = with_slow_endpoint(5).await;
    for _ in 0..50 {
        bench.push(slow);
    }
    until("the share to be used up", || hanging.count() == 11).await;
    until("the jobs to be read", || bench.queue.waiting.lock().unwrap().is_empty()).await;
    let reports = bench.stop().await;
    assert_eq!(reports[1..].iter().filter(|report| held(report) == HoldReason::Released).count(), 5);
    assert_eq!((reports.len(), hanging.count()), (6, 11));
}

#[tokio::test]
async fn a_turn_comes_when_a_request_ends() {
    let hanging = Receiver::start(Reply::Hang).await;
    let bench = Bench::start(Options { max_in_flight: 2, slow_waiting: 100, report_buffer: 200, ..quick() });
    let slow = bench.endpoint_with(&url(&hanging), |endpoint| endpoint.timeout = Duration::from_millis(50));
    for _ in 0..10 {
        bench.push(slow);
    }
    let reports = bench.reports(10).await;
    assert!(reports.iter().all(|report| attempted(report).outcome() == AttemptOutcome::TimedOut));
    assert_eq!(hanging.count(), 10);
    assert!(bench.dialer.dials.load(Ordering::SeqCst) >= 10);
}

#[tokio::test]
async fn who_waits_for_a_turn_keeps_no_room_for_payloads() {
    let hanging = Receiver::start(Reply::Hang).await;
    // Four jobs of slow endpoints at once, and room for one payload.
    let options = Options { max_in_flight: 8, payload_bytes: 100 << 10, payload_batch_bytes: 1 << 20, ..quick() };
    let bench = Bench::start(options);
    let [busy, slow] = [2_000, 100]
        .map(|millis| bench.endpoint_with(&url(&hanging), |endpoint| endpoint.timeout = Duration::from_millis(millis)));
    let payload = Bytes::from(vec![b'p'; 80 << 10]);
    let push_large = |endpoint| {
        let job = Job { body: Some(Body::PayloadReference(80 << 10)), ..job(endpoint) };
        bench.lookup.payloads.lock().unwrap().insert(EventId::from_bytes(&job.event_id).unwrap(), payload.clone());
        bench.queue.push(leased(job));
    };
    push_large(busy);
    until("the room to be taken", || hanging.count() == 1).await;
    push_large(slow);
    // Only now the endpoint is known to be slow: the job before waits for room, those after take the share and wait behind it.
    bench.push(slow);
    assert_eq!(bench.attempt().await.outcome(), AttemptOutcome::TimedOut);
    for _ in 0..4 {
        push_large(slow);
    }
    let reports = bench.reports(7).await;
    assert!(reports.iter().all(|report| attempted(report).outcome() == AttemptOutcome::TimedOut));
}
