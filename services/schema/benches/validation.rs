//! Payloads validated by the schema of their event type, as ingest does it.
#![allow(clippy::unwrap_used, reason = "measures, and does not serve")]

use std::{fmt::Write as _, hint::black_box};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use outrider_schema::{Schema, Validation};

const SCHEMA: &str = r#"{
    "type": "object",
    "required": ["id", "total", "lines"],
    "properties": {
        "id": {"type": "string", "pattern": "^inv_[0-9a-z]{1,32}$"},
        "total": {"type": "number", "minimum": 0},
        "customer": {
            "type": "object",
            "properties": {"email": {"type": "string", "maxLength": 320}}
        },
        "lines": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["sku", "count"],
                "properties": {
                    "sku": {"type": "string"},
                    "count": {"type": "integer", "minimum": 1}
                },
                "additionalProperties": false
            }
        }
    }
}"#;

fn payload(lines: usize) -> String {
    let mut payload = r#"{"id": "inv_01h455vb4p", "total": 12.5, "#.to_owned();
    payload += r#""customer": {"email": "a@example.com"}, "lines": ["#;
    for line in 0..lines {
        write!(
            payload,
            r#"{}{{"sku": "sku-{line:06}", "count": {}}}"#,
            if line == 0 { "" } else { "," },
            line + 1
        )
        .unwrap();
    }
    payload + "]}"
}

fn validation(c: &mut Criterion) {
    let schema = Schema::compile(SCHEMA).unwrap();
    let mut group = c.benchmark_group("validate by a schema");
    // About 1 KiB and 8 KiB.
    for lines in [27, 230] {
        let payload = payload(lines);
        assert_eq!(schema.validate_briefly(payload.as_bytes()), Validation::Fits);
        group.throughput(Throughput::Bytes(payload.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("{} B", payload.len())), |b| {
            b.iter(|| schema.validate_briefly(black_box(payload.as_bytes())));
        });
    }
    group.finish();
    c.bench_function("compile a schema", |b| b.iter(|| Schema::compile(black_box(SCHEMA))));
}

criterion_group!(benches, validation);
criterion_main!(benches);
