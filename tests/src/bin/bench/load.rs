//! Publishes in a closed loop, as fast as answers arrive.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use outrider_proto::ingest::{NewEvent, PublishEventRequest};
use outrider_tests::{Receiver, client::Grpc};

use crate::{
    arguments::{Load, Mode},
    arrivals,
    harm::Harm,
    history,
    memory::Watch,
    servers::Cost,
    streams,
    turns::Turns,
    world::{EVENT_TYPE, World, event},
};

/// The results that callers saw.
pub struct Published {
    pub accepted: usize,
    /// Microseconds, sorted.
    pub latencies: Vec<u32>,
    pub took: Duration,
}

/// The results of a load.
pub struct Outcome {
    pub published: Published,
    /// From the first publish to the last arrival.
    pub took: Duration,
    pub before: Cost,
    pub after: Cost,
    /// The highest memory of all processes of Outrider together, in bytes.
    pub memory: u64,
    pub delivered: usize,
    pub harm: Harm,
}

/// Measures a load on its own servers. Losses are counted and are not an error.
pub async fn run(load: &Load) -> Result<Outcome> {
    let mut world = World::start(load.layout, load.processes, Receiver::start_counting().await?)?;
    let outcome = async {
        fill(load, &mut world).await?;
        measure(load, &world).await
    };
    let outcome = outcome.await;
    world.logged(outcome)
}

/// Creates what must exist before the load.
async fn fill(load: &Load, world: &mut World) -> Result<()> {
    world.endpoints(load.fan_out, load.max_in_flight).await?;
    world.idle_endpoints(load.idle_endpoints).await?;
    if load.idle_subscriptions > 0 {
        world.idle_subscriptions(load.idle_subscriptions).await?;
    }
    if load.old_deliveries > 0 {
        history::write(world, load.old_deliveries).await?;
    }
    Ok(())
}

async fn measure(load: &Load, world: &World) -> Result<Outcome> {
    let event = event(load.payload);
    world.warm_up(&event).await?;
    let (arrived, repeated) = (world.arrived(), world.duplicates());
    let before = world.servers.cost().await?;
    let watch = Watch::start(world.servers.outrider.process_ids());
    let begin = Instant::now();
    let published = publish(load, world, &event).await?;
    let expected = published.accepted * world.paths.len();
    let arrivals =
        arrivals::wait(arrived + expected, Duration::from_secs(load.patience), || world.arrived())
            .await;
    let took = arrivals.last - begin;
    // The last delivery is settled a moment later, and its cost is part of the load.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (memory, after) = (watch.highest(), world.servers.cost().await?);
    let delivered = arrivals.count - arrived;
    let harm = Harm {
        lost: expected.saturating_sub(delivered),
        duplicates: world.duplicates() - repeated,
        findings: if load.verify { world.findings()? } else { 0 },
    };
    Ok(Outcome { published, took, before, after, memory, delivered, harm })
}

async fn publish(load: &Load, world: &World, event: &Bytes) -> Result<Published> {
    let time = Duration::from_secs(load.seconds);
    match load.mode {
        Mode::Rest => {
            call_for(load.callers, time, async || world.publish(event).await.map(|_| 1)).await
        }
        Mode::Stream => streams::publish_for(load, world, time).await,
        Mode::Grpc => {
            let outrider = &world.servers.outrider;
            let connect =
                async |url| anyhow::Ok(Grpc::connect(url, &outrider.token).await?.ingest());
            let each =
                Turns::of(try_join_all(world.servers.urls.iter().map(|url| connect(url))).await?);
            let event = message(load.payload);
            call_for(load.callers, time, async || {
                let request = PublishEventRequest {
                    project_id: outrider.project_id.clone(),
                    event: Some(event.clone()),
                };
                let reply = each.next().clone().publish_event(request).await?.into_inner();
                ensure!(reply.delivery_count as usize == world.paths.len(), "{reply:?}");
                Ok(1)
            })
            .await
        }
    }
}

/// Returns the event of a load, for gRPC.
pub fn message(payload: usize) -> NewEvent {
    NewEvent {
        event_type: EVENT_TYPE.to_owned(),
        payload: format!("\"{}\"", "x".repeat(payload.saturating_sub(2))).into(),
        ..NewEvent::default()
    }
}

/// Runs callers that repeat `call`, which returns how much it did, for a time.
pub async fn call_for(
    callers: usize,
    time: Duration,
    call: impl AsyncFn() -> Result<usize>,
) -> Result<Published> {
    let begin = Instant::now();
    let one = async || {
        let (mut accepted, mut latencies) = (0, Vec::new());
        while begin.elapsed() < time {
            let start = Instant::now();
            accepted += call().await?;
            latencies.push(micros(start.elapsed()));
        }
        anyhow::Ok((accepted, latencies))
    };
    let all = try_join_all((0..callers).map(|_| one())).await?;
    let took = begin.elapsed();
    let accepted = all.iter().map(|(accepted, _)| accepted).sum();
    let mut latencies: Vec<u32> = all.into_iter().flat_map(|(_, latencies)| latencies).collect();
    latencies.sort_unstable();
    Ok(Published { accepted, latencies, took })
}

/// Returns whole microseconds.
pub fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}
