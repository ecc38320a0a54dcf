//! Publishes over StreamEvents as fast as the server reads.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use outrider_proto::ingest::{NewEvent, stream_events_response::Kind as Told};
use outrider_tests::client::{Connection, Grpc, streamed};

use crate::{
    arguments::Load,
    load::{Published, message, micros},
    world::World,
};

/// Publishes on all connections, for a time.
pub async fn publish_for(load: &Load, world: &World, time: Duration) -> Result<Published> {
    let event = message(load.payload);
    let begin = Instant::now();
    let streams = (0..load.streams).map(|number| one(number, world, &event, begin + time));
    let mut latencies: Vec<u32> = try_join_all(streams).await?.into_iter().flatten().collect();
    latencies.sort_unstable();
    Ok(Published { accepted: latencies.len(), latencies, took: begin.elapsed() })
}

/// Runs one stream. Returns the microseconds from each event to its acknowledgment.
async fn one(number: usize, world: &World, event: &NewEvent, end: Instant) -> Result<Vec<u32>> {
    let outrider = &world.servers.outrider;
    let fan_out = world.paths.len() as u64;
    let urls = &world.servers.urls;
    let grpc = Grpc::connect(&urls[number % urls.len()], &outrider.token).await?;
    let name = format!("bench-{}-{number}", std::process::id());
    let Connection { out, mut inbound, window } =
        Connection::open(&grpc, &outrider.project_id, &name).await?;
    let (mut sent, mut latencies) = (VecDeque::new(), Vec::new());
    let mut sequence = 0;
    while Instant::now() < end || !sent.is_empty() {
        tokio::select! {
            message = inbound.message() => {
                let message = message?.context("the server ended the stream")?;
                let Some(Told::Ack(ack)) = message.kind else { bail!("{message:?}") };
                let deliveries = u64::from(ack.accepted_count) * fan_out;
                ensure!(
                    ack.delivery_count == deliveries && ack.duplicate_count == 0,
                    "{ack:?}"
                );
                for _ in 0..ack.accepted_count {
                    let since: Option<Instant> = sent.pop_front();
                    let since = since.context("more is acknowledged than was sent")?;
                    latencies.push(micros(since.elapsed()));
                }
            }
            Ok(place) = out.reserve(),
                if sent.len() < window.window_events as usize && Instant::now() < end => {
                sequence += 1;
                sent.push_back(Instant::now());
                place.send(streamed(sequence, event.clone()));
            }
        }
    }
    Ok(latencies)
}
