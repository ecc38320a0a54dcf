//! The benchmark against which changes are held: callers publish by REST, or over streams, as fast as they are answered, one endpoint
//! receives, and one table tells rates, latencies, losses, and what it cost each process.

mod report;
mod streams;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use futures::future::try_join_all;
use http::Method;
use outrider_tests::{
    Outrider, Receiver, Shape,
    client::Rest,
    cluster::Options,
    servers::{Postgres, Redis},
    usage, wait_until,
};
use report::Cost;
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
    /// How events are published.
    #[arg(long, value_enum, default_value_t = Mode::Rest)]
    mode: Mode,
    /// Streams at once, each on a connection of its own; only for `--mode stream`.
    #[arg(long, default_value_t = 1)]
    connections: usize,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// By REST: each caller waits for its answer before it publishes again.
    Rest,
    /// By StreamEvents: each connection sends as fast as the server reads; a latency is from an event to its acknowledgement.
    Stream,
}

/// The servers that are measured.
struct Servers {
    outrider: Outrider,
    postgres: Option<Postgres>,
    redis: Option<Redis>,
}

impl Servers {
    fn start(layout: Layout) -> Result<Self> {
        let (shape, needs_servers) = match layout {
            Layout::One => (Shape::Postgres, true),
            Layout::Six => (Shape::Mesh, true),
            Layout::Sqlite => (Shape::Sqlite, false),
        };
        let postgres = needs_servers.then(Postgres::start_durable).transpose()?;
        let redis = needs_servers.then(Redis::start_persistent).transpose()?;
        let outrider = Outrider::start(shape, &Options::of_the_product(), postgres.as_ref(), redis.as_ref())?;
        Ok(Self { outrider, postgres, redis })
    }

    /// What everything has cost up to now.
    fn cost(&self) -> Result<Cost> {
        let of = |pid: Option<u32>| pid.map(|pid| usage::of(&[pid])).unwrap_or_default();
        let commits =
            self.postgres.as_ref().map(|server| server.query("postgres", "SELECT sum(xact_commit) FROM pg_stat_database"));
        let commands = self.redis.as_ref().map(|server| server.ask("INFO stats")).transpose()?.unwrap_or_default();
        let commands = commands.lines().find_map(|line| line.strip_prefix("total_commands_processed:")?.trim().parse().ok());
        Ok(Cost {
            outrider: usage::of(&self.outrider.process_ids()),
            postgres: of(self.postgres.as_ref().map(Postgres::process_id)),
            redis: of(self.redis.as_ref().map(Redis::process_id)),
            callers: usage::of_one(std::process::id()),
            commits: commits.transpose()?.map(|text| text.trim().parse()).transpose()?.unwrap_or(0),
            commands: commands.unwrap_or(0),
        })
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
    let servers = Servers::start(arguments.layout)?;
    let outcome = measure(&arguments, &servers, machine).await;
    outcome.with_context(|| servers.outrider.logs(20))
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
    Ok(report::rate(published.accepted, published.took))
}

async fn measure(arguments: &Arguments, servers: &Servers, machine: f64) -> Result<()> {
    let outrider = &servers.outrider;
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
    let before = servers.cost()?;
    let begin = Instant::now();
    let published = publish(arguments, outrider, &rest, &path, &event).await?;
    let expected = published.accepted + warmed;
    let patience = Duration::from_secs(arguments.patience);
    let all =
        wait_until("everything is delivered", patience, async || (receiver.distinct("/bench") >= expected).then_some(())).await;
    let took = begin.elapsed();
    // Settling follows the last delivery by a moment; its cost belongs here.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let after = servers.cost()?;
    let lost = expected.saturating_sub(receiver.distinct("/bench"));
    let duplicates = receiver.duplicates("/bench");
    report::print(&report::Outcome { arguments, machine, published, took, before, after, lost, duplicates });
    ensure!(all.is_ok(), "{lost} events did not arrive within {patience:?}");
    Ok(())
}

/// Publishes for the time of the measurement.
async fn publish(arguments: &Arguments, outrider: &Outrider, rest: &Rest, path: &str, event: &Bytes) -> Result<Published> {
    let time = Duration::from_secs(arguments.seconds);
    if arguments.mode == Mode::Stream {
        return streams::publish_for(arguments, outrider, time).await;
    }
    let published = call_for(arguments.callers, time, async || {
        let reply = rest.send(Method::POST, path, event.clone()).await?.success()?;
        ensure!(reply["delivery_count"] == 1, "{reply}");
        Ok(())
    });
    published.await
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
