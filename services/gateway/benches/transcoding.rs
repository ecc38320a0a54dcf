//! What REST costs beyond gRPC: the conversion of a publish from JSON to protobuf, and of its
//! answer back.
#![allow(clippy::unwrap_used, reason = "measures, and does not serve")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use outrider_gateway::measured::Publish;
use outrider_proto::ingest::PublishEventResponse;
use prost::Message as _;

fn transcoding(c: &mut Criterion) {
    let publish = Publish::new();
    let mut group = c.benchmark_group("rest");
    for size in [1_024, 64 * 1_024] {
        let text = "x".repeat(size);
        let body = Bytes::from(format!(
            "{{\"event_type\": \"invoice.paid\", \"data\": {{\"text\": \"{text}\"}}, \
                \"idempotency_key\": \"0123456789\", \
             \"metadata\": {{\"customer\": \"c-1\"}}}}"
        ));
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(BenchmarkId::new("publish", format!("{size} B")), |b| {
            b.iter(|| publish.request(black_box(&body)))
        });
    }
    let answer = PublishEventResponse {
        event_id: "evt_01h455vb4pex5vsknk084sn02q".to_owned(),
        delivery_count: 1,
        create_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 123_456_000 }),
        ..PublishEventResponse::default()
    }
    .encode_to_vec();
    group.throughput(Throughput::Elements(1));
    group.bench_function("answer", |b| b.iter(|| publish.answer(black_box(&answer))));
    group.finish();
}

criterion_group!(benches, transcoding);
criterion_main!(benches);
