//! The benchmark against which changes are held: callers publish by REST as fast as they are answered, one endpoint receives, and
//! one table tells rates, latencies, losses, and what it cost each process.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use futures::future::try_join_all;
use http::Method;
use outrider_tests::{
    Outrider, Receiver, Shape,
    client::Rest,
    cluster::Options,
    servers::{Postgres, Redis},
    usage::{self, Usage},
    wait_until,
};
use serde_json::{Value, json};

/// Measures Outrider on PostgreSQL (synced commits) and Redis (append-only file), with real servers on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long callers publish, in seconds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Callers at once; each waits for its answer before it publishes again.
    #[arg(long, default_value_t = 64)]
    callers: usize,
    /// The payload in bytes.
    #[arg(long, default_value_t = 1_024)]
    payload: usize,
    /// The endpoint's limit of requests at once.
    #[arg(long, default_value_t = 1_024)]
    max_in_flight: u32,
    /// What is measured.
    #[arg(long, value_enum, default_value_t = Layout::One)]
    layout: Layout,
    /// How long to wait for the last delivery after the last publish, in seconds.
    #[arg(long, default_value_t = 120)]
    patience: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Layout {
    /// PostgreSQL and Redis, all roles in one process.
    One,
    /// PostgreSQL and Redis, six processes.
    Six,
    /// SQLite and the embedded queue.
    Sqlite,
}

/// Whose cost is told.
struct Processes {
    outrider: Vec<u32>,
    postgres: Vec<u32>,
    redis: Vec<u32>,
}

impl Processes {
    fn usage(&self) -> [Usage; 4] {
        [usage::of(&self.outrider), usage::of(&self.postgres), usage::of(&self.redis), usage::of_one(std::process::id())]
    }
}

/// What callers saw.
struct Published {
    accepted: usize,
    /// Microseconds, sorted.
    latencies: Vec<u32>,
    took: Duration,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if cfg!(debug_assertions) {
        eprintln!("this is a debug build: its numbers mean nothing; use cargo run --release");
    }
    let machine = measure_machine(&arguments).await?;
    let (shape, needs_servers) = match arguments.layout {
        Layout::One => (Shape::Postgres, true),
        Layout::Six => (Shape::Mesh, true),
        Layout::Sqlite => (Shape::Sqlite, false),
    };
    let postgres = needs_servers.then(Postgres::start_durable).transpose()?;
    let redis = needs_servers.then(Redis::start_persistent).transpose()?;
    let outrider = Outrider::start(shape, &Options::of_the_product(), postgres.as_ref(), redis.as_ref())?;
    let processes = Processes {
        outrider: outrider.process_ids(),
        postgres: postgres.iter().map(Postgres::process_id).collect(),
        redis: redis.iter().map(Redis::process_id).collect(),
    };
    let outcome = measure(&arguments, &outrider, &processes, machine).await;
    outcome.with_context(|| outrider.logs(20))
}

/// The bare machine: the same callers POST the same body straight to the receiver.
async fn measure_machine(arguments: &Arguments) -> Result<f64> {
    let receiver = Receiver::start_counting().await?;
    let rest = Rest::new(&receiver.url(""), None);
    let body = Bytes::from(vec![b'x'; arguments.payload]);
    let published = call_for(arguments.callers, Duration::from_secs(5), async || {
        let reply = rest.send(Method::POST, "/machine", body.clone()).await?;
        ensure!(reply.status == 200, "{}", reply.status);
        Ok(())
    });
    let published = published.await?;
    Ok(rate(published.accepted, published.took))
}

async fn measure(arguments: &Arguments, outrider: &Outrider, processes: &Processes, machine: f64) -> Result<()> {
    let receiver = Receiver::start_counting().await?;
    let rest = Rest::new(&outrider.url(), Some(&outrider.token));
    let project = format!("/v1/projects/{}", outrider.project_id);
    let endpoint = json!({"http": {"url": receiver.url("/bench")}, "max_in_flight": arguments.max_in_flight});
    let endpoint = rest.post(&format!("{project}/endpoints"), &endpoint).await?;
    let endpoint = endpoint["endpoint"]["endpoint_id"].clone();
    let subscription = json!({"endpoint_id": endpoint, "name": "bench", "event_types": ["bench"]});
    rest.post(&format!("{project}/subscriptions"), &subscription).await?;
    let path = format!("{project}/events");
    let event = event(arguments.payload);
    warm_up(&rest, &path, &event, &receiver).await?;

    let warmed = receiver.total("/bench");
    let before = processes.usage();
    let begin = Instant::now();
    let published = call_for(arguments.callers, Duration::from_secs(arguments.seconds), async || {
        let reply = rest.send(Method::POST, &path, event.clone()).await?.success()?;
        ensure!(reply["delivery_count"] == 1, "{reply}");
        Ok(())
    });
    let published = published.await?;
    let expected = published.accepted + warmed;
    let patience = Duration::from_secs(arguments.patience);
    let all = wait_until("everything is delivered", patience, async || (receiver.distinct("/bench") >= expected).then_some(()));
    let complete = all.await.is_ok();
    let took = begin.elapsed();
    // Settling follows the last delivery by a moment; its cost belongs here.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let after = processes.usage();
    let result = Outcome { machine, published, took, before, after, lost: expected.saturating_sub(receiver.distinct("/bench")) };
    result.print(&receiver, arguments);
    if !complete {
        bail!("{} events did not arrive within {patience:?}", result.lost);
    }
    Ok(())
}

/// A publish whose payload is JSON of the given length.
fn event(payload: usize) -> Bytes {
    let data: Value = "x".repeat(payload.saturating_sub(2)).into();
    json!({"event_type": "bench", "data": data}).to_string().into()
}

/// Publishes until the subscription is in force and what was published has arrived.
async fn warm_up(rest: &Rest, path: &str, event: &Bytes, receiver: &Receiver) -> Result<()> {
    let mut routed = 0;
    wait_until("the subscription is in force", Duration::from_secs(30), async || {
        for _ in 0..200 {
            let reply = rest.send(Method::POST, path, event.clone()).await.ok()?.success().ok()?;
            routed += usize::from(reply["delivery_count"] == 1);
        }
        (routed > 0).then_some(())
    })
    .await?;
    wait_until("the first events arrive", Duration::from_secs(30), async || (receiver.distinct("/bench") >= routed).then_some(()))
        .await
}

/// Callers that repeat `call` for a time.
async fn call_for(callers: usize, time: Duration, call: impl AsyncFn() -> Result<()>) -> Result<Published> {
    let begin = Instant::now();
    let one = async || {
        let mut latencies = Vec::new();
        while begin.elapsed() < time {
            let start = Instant::now();
            call().await?;
            latencies.push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
        anyhow::Ok(latencies)
    };
    let mut latencies: Vec<u32> = try_join_all((0..callers).map(|_| one())).await?.into_iter().flatten().collect();
    latencies.sort_unstable();
    Ok(Published { accepted: latencies.len(), latencies, took: begin.elapsed() })
}

#[allow(clippy::cast_precision_loss)]
fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

struct Outcome {
    machine: f64,
    published: Published,
    took: Duration,
    before: [Usage; 4],
    after: [Usage; 4],
    lost: usize,
}

impl Outcome {
    fn print(&self, receiver: &Receiver, arguments: &Arguments) {
        let percentile = |part: usize| {
            let index = (self.published.latencies.len() * part / 1_000).min(self.published.latencies.len().saturating_sub(1));
            f64::from(self.published.latencies.get(index).copied().unwrap_or(0)) / 1_000.0
        };
        let delivered = self.published.accepted - self.lost;
        let row = |name: &str, value: String| println!("| {name:<44} | {value:>14} |");
        println!();
        row("measure", format!("{:?}", arguments.layout).to_lowercase());
        println!("|{:-<46}|{:->16}|", "", ":");
        row("bare machine, POST to receiver, 1/s", format!("{:.0}", self.machine));
        row("callers / payload, bytes", format!("{} / {}", arguments.callers, arguments.payload));
        row("published, 1/s", format!("{:.0}", rate(self.published.accepted, self.published.took)));
        row("delivered, 1/s (first publish to last arrival)", format!("{:.0}", rate(delivered, self.took)));
        row("publish p50, ms", format!("{:.2}", percentile(500)));
        row("publish p99, ms", format!("{:.2}", percentile(990)));
        row("publish p99.9, ms", format!("{:.2}", percentile(999)));
        row("delivered", delivered.to_string());
        row("lost", self.lost.to_string());
        row("duplicates", receiver.duplicates("/bench").to_string());
        for (index, name) in ["outrider", "PostgreSQL", "Redis", "callers and receiver"].into_iter().enumerate() {
            let (before, after) = (self.before[index], self.after[index]);
            let cpu = after.cpu.saturating_sub(before.cpu);
            if after.resident > 0 {
                let per_thousand = 1_000.0 / rate(delivered.max(1), cpu.max(Duration::from_micros(1)));
                row(&format!("{name}: CPU s per 1,000 deliveries"), format!("{per_thousand:.4}"));
                row(&format!("{name}: resident memory, MiB"), (after.resident / 1_048_576).to_string());
            }
        }
    }
}
