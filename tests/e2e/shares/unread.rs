//! Three hundred unread tails while events are published.

use std::collections::HashSet;

use anyhow::{Context, Result, ensure};
use outrider_proto::dispatch::{
    TailEventsRequest, TailEventsResponse, tail_events_response::Update,
};
use outrider_tests::{Outrider, Shape, client::Grpc, usage, wait_until};
use serde_json::json;
use tonic::Streaming;

use super::{Caller, Callers, in_time, of_resource, returned, start};
use crate::{
    scenario::{BOUND, run_with_shares, text, with_logs},
    telemetry::{scrapes, sum},
};

/// The number of tails of each of two keys, with fifty on a connection.
const TAILS: usize = 150;
const CONNECTION: usize = 50;
const EVENTS: usize = 40;
const PAYLOAD: usize = 700_000;
/// How much all processes together may grow, in bytes. Without bounds, it would be more than 1 GB.
const GROWTH: u64 = 128 << 20;

fn request(caller: &Caller) -> TailEventsRequest {
    TailEventsRequest {
        project_id: caller.project.clone(),
        include_payload: true,
        ..TailEventsRequest::default()
    }
}

/// Opens a key's tails, which are not read.
async fn open(caller: &Caller) -> Result<Vec<(Grpc, Streaming<TailEventsResponse>)>> {
    let mut tails = Vec::new();
    for _ in 0..TAILS / CONNECTION {
        let grpc = caller.grpc().await?;
        for _ in 0..CONNECTION {
            let tail = grpc.events().tail_events(request(caller)).await?.into_inner();
            tails.push((grpc.clone(), tail));
        }
    }
    Ok(tails)
}

/// Publishes, and reads a tail until all events have arrived.
async fn follow(caller: &Caller, events: usize) -> Result<()> {
    let mut tail = caller.grpc().await?.events().tail_events(request(caller)).await?.into_inner();
    tail.message().await?.context("it begins with a heartbeat")?;
    let mut published = HashSet::new();
    for _ in 0..events {
        published.insert(text(&caller.publish(PAYLOAD).await?.success()?, "event_id")?);
    }
    while !published.is_empty() {
        if let Some(Update::Event(event)) = tail.message().await?.context("the tail ended")?.update
        {
            ensure!(event.payload.len() >= PAYLOAD, "{} bytes", event.payload.len());
            published.remove(&event.event_id);
        }
    }
    Ok(())
}

/// Returns the memory of each process.
fn memory(outrider: &Outrider) -> Vec<u64> {
    outrider.process_ids().iter().map(|process| usage::of_one(*process).memory).collect()
}

fn mib(memory: &[u64]) -> String {
    memory.iter().map(|bytes| format!("{} ", bytes >> 20)).collect()
}

async fn unread(outrider: &Outrider) -> Result<()> {
    let Callers { greedy, others: [sibling, neighbor, stranger] } = Callers::new(outrider).await?;
    // Allocate one-time memory before the measurement: caches, buffers of connections, the code
    // path of tails.
    for caller in [&greedy, &sibling, &neighbor, &stranger] {
        in_time("warming up", follow(caller, 2)).await?;
    }
    let before = memory(outrider);
    let mut tails = open(&greedy).await?;
    tails.extend(open(&sibling).await?);
    // Another key of their project, and keys of other tenants.
    let scenario = crate::scenario::Scenario::new(outrider).await?;
    let reader = super::key(&scenario, &greedy.project).await?;
    in_time("a key of the same project", follow(&reader, EVENTS)).await?;
    let mut peak = memory(outrider);
    let mut most = peak.iter().sum::<u64>();
    for caller in [&neighbor, &stranger] {
        in_time("a key of another project", follow(caller, 5)).await?;
        let now = memory(outrider);
        if now.iter().sum::<u64>() > most {
            (most, peak) = (now.iter().sum(), now);
        }
    }
    let held = of_resource(outrider, "held", "tail-bytes").await?;
    ensure!(held > PAYLOAD as f64, "the gauge says {held}");
    ensure!(of_resource(outrider, "waited_total", "tail-bytes").await? >= 1.0, "no tail waited");
    let told = format!(
        "{} tails hold {held} bytes; memory from {}to {}MiB",
        tails.len(),
        mib(&before),
        mib(&peak)
    );
    eprintln!("{told}");
    let before = before.iter().sum::<u64>();
    ensure!(before > 0 && most < before + GROWTH, "{told}");
    drop(tails);
    for resource in ["tail-bytes", "answer-bytes", "tails"] {
        returned(outrider, resource).await?;
    }
    wait_until("the gauge of the gateway is back", BOUND, async || {
        (sum(&scrapes(outrider).await.ok()?, "outrider_gateway_unsent_bytes ") == 0.0).then_some(())
    })
    .await
}

async fn run(shape: Shape) -> Result<()> {
    let outrider = start(shape, json!({}))?;
    unread(&outrider).await.map_err(|error| with_logs(&error, &outrider))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tails_that_nobody_reads_hold_little() {
    run_with_shares(2, async || run(Shape::Sqlite).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tails_that_nobody_reads_hold_little_over_six_processes() {
    run_with_shares(2, async || run(Shape::Mesh).await).await;
}
