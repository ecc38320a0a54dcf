//! The pure rules that each event or attempt goes through: routing, signing, judging and settling.
#![allow(clippy::unwrap_used, reason = "measures, and does not serve")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use outrider_model::{
    AttemptOutcome, DeliveryId, EndpointId, EventId, PendingDelivery, ProjectId, RetryPolicy,
    Router, SigningSecret, Subscription, SubscriptionFixed, SubscriptionId, SubscriptionSpec,
    Timestamp,
    delivery::{Report, judge_attempt, step},
    signature,
};

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

fn subscription(number: u64, pattern: &str) -> Subscription {
    let fixed = SubscriptionFixed {
        project: ProjectId::new(NOW, 1),
        endpoint: EndpointId::new(NOW, number),
    };
    let spec =
        SubscriptionSpec { name: String::new(), event_types: vec![pattern.parse().unwrap()] };
    Subscription::new(SubscriptionId::new(NOW, number), fixed, spec, NOW)
}

/// However many subscriptions a project has, ten of them match: by name, by prefix, and all.
fn routing(c: &mut Criterion) {
    let mut group = c.benchmark_group("route, ten match");
    for count in [10_u64, 100, 1_000, 10_000, 100_000] {
        let pattern = |number: u64| match number {
            0..7 => "invoice.paid.eu".to_owned(),
            7 | 8 => "invoice.*".to_owned(),
            9 => "*".to_owned(),
            _ => format!("other.type{number}"),
        };
        let subscriptions: Vec<Subscription> =
            (0..count).map(|number| subscription(number, &pattern(number))).collect();
        let router = Router::new(&subscriptions);
        assert_eq!(router.route("invoice.paid.eu").len(), 10);
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| router.route(black_box("invoice.paid.eu")))
        });
    }
    group.finish();
    let mut group = c.benchmark_group("route, all match");
    for count in [10_u64, 1_000, 100_000] {
        let subscriptions: Vec<Subscription> =
            (0..count).map(|number| subscription(number, "*")).collect();
        let router = Router::new(&subscriptions);
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| router.route(black_box("invoice.paid.eu")))
        });
    }
    group.finish();
    let mut group = c.benchmark_group("compile the router");
    for count in [10_u64, 1_000, 100_000] {
        let subscriptions: Vec<Subscription> =
            (0..count).map(|number| subscription(number, &format!("other.type{number}"))).collect();
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| Router::new(black_box(&subscriptions)))
        });
    }
    group.finish();
}

fn signing(c: &mut Criterion) {
    let secret = SigningSecret::from_bytes(&[7; 32]).unwrap();
    let mut group = c.benchmark_group("sign");
    for size in [1_024, 64 * 1_024] {
        let body = vec![b'x'; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("{size} B")), |b| {
            b.iter(|| {
                signature::sign(
                    [&secret],
                    black_box("evt_01h455vb4pex5vsknk084sn02q"),
                    NOW,
                    black_box(&body),
                )
            });
        });
    }
    group.finish();
}

fn settling(c: &mut Criterion) {
    let (event, endpoint) = (EventId::new(NOW, 1), EndpointId::new(NOW, 2));
    c.bench_function("derive a delivery's id", |b| {
        b.iter(|| DeliveryId::derive(NOW, black_box(event), black_box(endpoint), 0))
    });
    let row = PendingDelivery {
        id: DeliveryId::derive(NOW, event, endpoint, 0),
        project: ProjectId::new(NOW, 1),
        event,
        event_type: "invoice.paid".to_owned(),
        endpoint,
        subscriptions: vec![SubscriptionId::new(NOW, 1)],
        replay_number: 0,
        attempt: 1,
        due_at: NOW,
        queued_epoch: Some(1),
        generation: 1,
        check_at: NOW,
        created_at: NOW,
    };
    let policy = RetryPolicy::default();
    let mut group = c.benchmark_group("judge and settle");
    for (name, outcome) in
        [("success", AttemptOutcome::Succeeded), ("failure", AttemptOutcome::Rejected)]
    {
        group.bench_function(name, |b| {
            b.iter(|| {
                let verdict = judge_attempt(black_box(outcome), 1, NOW, &policy, 0.5);
                step(
                    black_box(&row),
                    Report { attempt: 1, generation: 1, attempted: true, verdict },
                )
            });
        });
    }
    group.finish();
}

criterion_group!(benches, routing, signing, settling);
criterion_main!(benches);
