//! Publishes at a fixed rate, whatever the answers, to measure the latency of single events.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use outrider_tests::{Answer, Receiver};
use tokio::{task::JoinSet, time::sleep_until};

use crate::{
    arguments::Layout,
    arrivals::{self, PATIENCE},
    harm::Harm,
    load::micros,
    world::{World, event},
};

/// The latencies, in sorted microseconds.
pub struct Paced {
    /// From a publish to its answer.
    pub publish: Vec<u32>,
    /// From a publish to each arrival.
    pub receipt: Vec<u32>,
    /// The longest time without an arrival on one of the paths, from the first publish on.
    pub gap: Duration,
    pub harm: Harm,
}

/// A rate for a time on its own servers, over REST, with 1 KiB per event.
pub struct Pace {
    pub rate: u32,
    pub time: Duration,
    /// Number of endpoints that each get every event, with the default limits.
    pub fan_out: usize,
    /// Whether the first endpoint never answers.
    pub hanging: bool,
    /// Whether the ledger is verified.
    pub verify: bool,
}

/// How long the receiver of [`away`] may get nothing until the rest counts as lost: longer than the
/// longest of the first waits of a retry.
const AWAY_PATIENCE: Duration = Duration::from_secs(600);

impl Pace {
    pub async fn measure(&self) -> Result<Paced> {
        let world = Arc::new(warm(self.fan_out).await?);
        let paced = self.observe(&world).await;
        world.logged(paced)
    }

    async fn observe(&self, world: &Arc<World>) -> Result<Paced> {
        if self.hanging {
            world.receiver.answer(&world.paths[0], [Answer::Hang]);
        }
        // Hanging requests are sent again after a while, and are not duplicates.
        let observed = &world.paths[usize::from(self.hanging)..];
        let paced = see(world, observed, self.rate, self.time, 1_024).await?;
        let findings = if self.verify { world.findings()? } else { 0 };
        Ok(Paced { harm: Harm { findings, ..paced.harm }, ..paced })
    }
}

/// Publishes at a rate for a time on running servers, with payloads of a size, and observes all
/// paths.
pub async fn observe(
    world: &Arc<World>,
    rate: u32,
    time: Duration,
    payload: usize,
) -> Result<Paced> {
    see(world, &world.paths, rate, time, payload).await
}

async fn see(
    world: &Arc<World>,
    observed: &[String],
    rate: u32,
    time: Duration,
    payload: usize,
) -> Result<Paced> {
    let sum = |of: &dyn Fn(&str) -> usize| observed.iter().map(|path| of(path)).sum::<usize>();
    let (arrived, repeated) = (
        || sum(&|path| world.receiver.distinct(path)),
        || sum(&|path| world.receiver.duplicates(path)),
    );
    let (before, duplicates) = (arrived(), repeated());
    let begin = Instant::now();
    let sent = publish(world, rate, time, payload).await?;
    let expected = sent.len() * observed.len();
    arrivals::wait(before + expected, PATIENCE, arrived).await;
    let mut receipt = receipts(world, observed, &sent);
    receipt.sort_unstable();
    let mut publish: Vec<u32> = sent.values().map(|(_, latency)| *latency).collect();
    publish.sort_unstable();
    let harm = Harm {
        lost: expected.saturating_sub(receipt.len()),
        duplicates: repeated() - duplicates,
        findings: 0,
    };
    Ok(Paced { publish, receipt, gap: longest_gap(world, observed, begin), harm })
}

/// Returns the longest time between two arrivals on one path.
fn longest_gap(world: &World, paths: &[String], begin: Instant) -> Duration {
    let gap = |path: &String| {
        let received = world.receiver.received(path);
        let mut last = begin;
        let later = received.iter().map(|received| received.at).filter(|at| *at > begin);
        later
            .map(|at| at.duration_since(std::mem::replace(&mut last, at)))
            .max()
            .unwrap_or_default()
    };
    paths.iter().map(gap).max().unwrap_or_default()
}

/// Starts one process with endpoints of default limits, and delivers some first events.
async fn warm(fan_out: usize) -> Result<World> {
    let mut world = World::start(Layout::One, 1, Receiver::start().await?)?;
    let warmed = async {
        world.endpoints(fan_out, 64).await?;
        world.warm_up(&event(1_024)).await
    };
    let warmed = warmed.await;
    world.logged(warmed)?;
    Ok(world)
}

/// Returns the time from each publish to its first arrival on each path.
fn receipts(world: &World, paths: &[String], sent: &HashMap<String, (Instant, u32)>) -> Vec<u32> {
    let mut latencies = Vec::new();
    for path in paths {
        let received = world.receiver.received(path);
        let mut seen = HashSet::new();
        let firsts = received.iter().filter(|received| seen.insert(received.id()));
        latencies
            .extend(firsts.filter_map(|first| {
                Some(micros(first.at.duration_since(sent.get(first.id())?.0)))
            }));
    }
    latencies
}

/// Publishes. Returns when each event was published, by id, and how long its answer took.
async fn publish(
    world: &Arc<World>,
    rate: u32,
    time: Duration,
    payload: usize,
) -> Result<HashMap<String, (Instant, u32)>> {
    let event = event(payload);
    let begin = tokio::time::Instant::now();
    let sent = Arc::new(Mutex::new(HashMap::new()));
    let mut publishes = JoinSet::new();
    for number in 0.. {
        let due = Duration::from_secs(1) * number / rate;
        if due >= time {
            break;
        }
        sleep_until(begin + due).await;
        let (world, sent, event) = (Arc::clone(world), Arc::clone(&sent), event.clone());
        publishes.spawn(async move {
            let start = Instant::now();
            let id = world.publish(&event).await?;
            sent.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(id, (start, micros(start.elapsed())));
            anyhow::Ok(())
        });
    }
    while let Some(published) = publishes.join_next().await {
        published??;
    }
    Ok(std::mem::take(&mut *sent.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// Makes the receiver unavailable for a time at 200 events a second. Returns how long after its
/// return the last event from before arrived, and losses and duplicates.
pub async fn away(gone: Duration, verify: bool) -> Result<(Duration, Harm)> {
    let world = Arc::new(warm(1).await?);
    let told = leave_and_come_back(&world, gone, verify).await;
    world.logged(told)
}

async fn leave_and_come_back(
    world: &Arc<World>,
    gone: Duration,
    verify: bool,
) -> Result<(Duration, Harm)> {
    const RATE: u32 = 200;
    let (before, repeated) = (world.arrived(), world.duplicates());
    world.receiver.leave();
    let missed = publish(world, RATE, gone, 1_024).await?;
    ensure!(world.arrived() == before, "the receiver was not away");
    world.receiver.come_back().await?;
    let back = Instant::now();
    // Publishing continues.
    let later = publish(world, RATE, Duration::from_secs(5), 1_024).await?;
    let expected = before + missed.len() + later.len();
    let arrivals = arrivals::wait(expected, AWAY_PATIENCE, || world.arrived()).await;
    let received = world.receiver.received(&world.paths[0]);
    let last = received
        .iter()
        .filter(|received| missed.contains_key(received.id()))
        .map(|received| received.at)
        .max();
    let harm = Harm {
        lost: expected.saturating_sub(arrivals.count),
        duplicates: world.duplicates() - repeated,
        findings: if verify { world.findings()? } else { 0 },
    };
    Ok((last.map_or(Duration::ZERO, |last| last.duration_since(back)), harm))
}
