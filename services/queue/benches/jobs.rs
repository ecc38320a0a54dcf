//! A job as it is written to the queue and read from it.
#![allow(clippy::unwrap_used, reason = "measures, and does not serve")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use outrider_proto::internal::{Job, job::Body};
use prost::Message as _;

fn job(payload: usize) -> Job {
    let id = || Bytes::from_static(&[7; 16]);
    Job {
        delivery_id: id(),
        event_id: id(),
        endpoint_id: id(),
        project_id: id(),
        attempt: 1,
        generation: 1,
        epoch: 1_700_000_000,
        queued_at: 1_700_000_000_000_000,
        due_at: 1_700_000_000_000_000,
        event_type: "invoice.paid".to_owned(),
        content_type: "application/json".to_owned(),
        body: Some(Body::Payload(Bytes::from(vec![b'x'; payload]))),
        ..Job::default()
    }
}

fn jobs(c: &mut Criterion) {
    for size in [1_024, 32 * 1_024] {
        let job = job(size);
        let bytes = Bytes::from(job.encode_to_vec());
        let mut group = c.benchmark_group("job");
        group.bench_function(BenchmarkId::new("encode", format!("{size} B")), |b| {
            b.iter(|| black_box(&job).encode_to_vec())
        });
        // The payload stays where it was received.
        group.bench_function(BenchmarkId::new("decode", format!("{size} B")), |b| {
            b.iter(|| Job::decode(black_box(bytes.clone())).unwrap());
        });
        group.finish();
    }
}

criterion_group!(benches, jobs);
criterion_main!(benches);
