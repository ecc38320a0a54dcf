//! Measures what slow start costs a new endpoint that answers at once.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use outrider_tests::{Receiver, wait_until};

use crate::{
    arguments::Layout,
    arrivals::{self, PATIENCE},
    world::{World, event},
};

const DELIVERIES: usize = 1_000;
const CALLERS: usize = 64;
/// The number of pairs of a new and a known endpoint. The median counts.
const PAIRS: usize = 9;

/// Returns the ratio of the time of the first 1,000 deliveries to a new endpoint to that of 1,000
/// to a known one, in the same process.
pub async fn first_deliveries() -> Result<f64> {
    let mut world = World::start(Layout::One, 1, Receiver::start().await?)?;
    let measured = async {
        world.endpoints(1, 1_024).await?;
        world.warm_up(&event(1_024)).await?;
        let known = "/bench/0";
        deliver(&world, "bench", known, DELIVERIES).await?;
        let mut ratios = Vec::new();
        for number in 0..PAIRS {
            let (kind, path) = (format!("fresh.{number}"), format!("/fresh/{number}"));
            world.target(&path, &kind, 1_024).await?;
            let fresh = deliver(&world, &kind, &path, DELIVERIES).await?;
            let usual = deliver(&world, "bench", known, DELIVERIES).await?;
            eprintln!(
                "  1,000 deliveries: {fresh:.2?} to a new endpoint, {usual:.2?} to a known one"
            );
            ratios.push(fresh.as_secs_f64() / usual.as_secs_f64());
        }
        ratios.sort_by(f64::total_cmp);
        anyhow::Ok(ratios[PAIRS / 2])
    };
    let measured = measured.await;
    world.logged(measured)
}

/// Publishes events of a type. Returns the time until all have arrived on the path.
async fn deliver(world: &World, event_type: &str, path: &str, count: usize) -> Result<Duration> {
    // The subscription of a new endpoint takes effect a moment later. This event is not counted.
    let routed =
        async || world.publish_as(event_type).await.is_ok_and(|owed| owed == 1).then_some(());
    wait_until("the subscription is in force", Duration::from_secs(10), routed).await?;
    arrivals::wait(1, PATIENCE, || world.receiver.distinct(path).min(1)).await;
    let (before, begin) = (world.receiver.distinct(path), Instant::now());
    let publish = |_| async { world.publish_as(event_type).await };
    let owed: usize = stream::iter(0..count)
        .map(publish)
        .buffer_unordered(CALLERS)
        .try_fold(0, |sum, owed| async move { Ok(sum + owed) })
        .await?;
    ensure!(owed == count, "{owed} of {count} deliveries were owed");
    let seen = arrivals::wait(before + count, PATIENCE, || world.receiver.distinct(path)).await;
    ensure!(seen.count >= before + count, "{} of {count} arrived", seen.count - before);
    let last = world.receiver.received(path).iter().map(|received| received.at).max();
    Ok(last.map_or(Duration::ZERO, |last| last.duration_since(begin)))
}
