//! Resources that are bytes: bodies of requests, and events that wait for a commit.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use outrider_tests::{
    Outrider, Shape,
    cluster::Options,
    process::Signal,
    servers::{Postgres, Redis},
    wait_until,
};
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpStream, task::block_in_place};

use super::{Caller, Callers, Refusal, in_time, of_resource, returned, start};
use crate::scenario::{BOUND, run_with_shares, with_logs};

const MIB: usize = 1024 * 1024;

/// Sends a request whose body lacks its last byte.
async fn unfinished(caller: &Caller, bytes: usize) -> Result<TcpStream> {
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: \
            application/json\r\nContent-Length: {}\r\n\r\n",
        caller.path("events"),
        caller.token,
        bytes + 1
    );
    let mut socket = TcpStream::connect(&caller.address).await?;
    socket.write_all(head.as_bytes()).await?;
    socket.write_all(" ".repeat(bytes).as_bytes()).await?;
    Ok(socket)
}

async fn bodies(shape: Shape) -> Result<()> {
    let sizes = json!({
        "gateway": {"max_buffered_bytes": 16 * MIB, "max_request_bytes": 3 * MIB},
        "ingest": {"max_batch_bytes": 2 * MIB},
    });
    let outrider = start(shape, sizes)?;
    let outcome = bodies_of(&outrider).await;
    outcome.map_err(|error| with_logs(&error, &outrider))
}

async fn bodies_of(outrider: &Outrider) -> Result<()> {
    const RESOURCE: &str = "request-bytes";
    let Callers { greedy, others } = Callers::new(outrider).await?;
    // A key has 4 MiB.
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(unfinished(&greedy, 1_000_000).await?);
    }
    let mut counted = 0.0;
    let taken = wait_until("the bodies are read", BOUND, async || {
        counted = of_resource(outrider, "held", RESOURCE).await.ok()?;
        (counted >= 4_000_000.0).then_some(())
    });
    taken.await.with_context(|| format!("{counted} are held"))?;
    let refused = in_time("the greedy key", greedy.publish(600_000)).await?;
    ensure!(refused.status == 429, "{refused:?}");
    Refusal::of_reply(&refused).is_of_the_key()?;
    ensure!(
        of_resource(outrider, "refused_total", RESOURCE).await? >= 1.0,
        "the refusal is not counted"
    );
    for other in &others {
        let reply = in_time("another key", other.publish(600_000)).await?;
        ensure!(reply.status == 200, "{other:?}: {reply:?}");
    }
    drop(held);
    returned(outrider, RESOURCE).await?;
    ensure!(greedy.publish(600_000).await?.status == 200, "it is the greedy key's turn again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_requests_are_divided() {
    run_with_shares(1, async || bodies(Shape::Sqlite).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_requests_are_divided_over_six_processes() {
    run_with_shares(2, async || bodies(Shape::Mesh).await).await;
}

/// PostgreSQL is frozen, so published events wait for a commit.
async fn commits(dispatch: serde_json::Value, resource: &str) -> Result<()> {
    let (postgres, redis) = block_in_place(|| anyhow::Ok((Postgres::start()?, Redis::start()?)))?;
    let options = Options { more: json!({"dispatch": dispatch}), ..Options::default() };
    let outrider = block_in_place(|| {
        Outrider::start(Shape::Postgres, &options, Some(&postgres), Some(&redis))
    })?;
    let outcome = commits_of(&outrider, &postgres, resource).await;
    outcome.map_err(|error| with_logs(&error, &outrider))
}

async fn commits_of(outrider: &Outrider, postgres: &Postgres, resource: &str) -> Result<()> {
    let Callers { greedy, others } = Callers::new(outrider).await?;
    returned(outrider, resource).await?;
    block_in_place(|| postgres.signal_all(Signal::Stop))?;
    let waiting: Vec<_> = (0..12)
        .map(|_| {
            let greedy = greedy.clone();
            tokio::spawn(async move { greedy.publish(100_000).await })
        })
        .collect();
    let refused = wait_until("a request is refused", BOUND, async || {
        waiting.iter().any(tokio::task::JoinHandle::is_finished).then_some(())
    });
    refused.await?;
    // None of these is refused. Each waits for its commit.
    let apart: Vec<_> = others
        .iter()
        .map(|other| {
            let other = other.clone();
            tokio::spawn(async move { other.publish(100_000).await })
        })
        .collect();
    let before = of_resource(outrider, "held", resource).await?;
    wait_until("the others wait", Duration::from_secs(5), async || {
        (of_resource(outrider, "held", resource).await.ok()? > before).then_some(())
    })
    .await
    .ok();
    block_in_place(|| postgres.signal_all(Signal::Continue))?;
    for reply in join_all(apart).await {
        let reply = reply??;
        ensure!(reply.status == 200, "{reply:?}");
    }
    let (mut accepted, mut refused) = (0, 0);
    for reply in join_all(waiting).await {
        let reply = reply??;
        if reply.status == 200 {
            accepted += 1;
        } else {
            ensure!(reply.status == 429, "{reply:?}");
            Refusal::of_reply(&reply).is_of_the_key()?;
            refused += 1;
        }
    }
    ensure!(accepted >= 1 && refused >= 1, "{accepted} accepted, {refused} refused");
    ensure!(
        of_resource(outrider, "refused_total", resource).await? >= 1.0,
        "the refusals are not counted"
    );
    returned(outrider, resource).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_wait_for_a_commit_are_divided() {
    run_with_shares(2, async || commits(json!({"accept_queue": 16}), "accept-calls").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_wait_for_a_commit_are_divided() {
    run_with_shares(2, async || {
        commits(json!({"accept_queue_bytes": 2 * MIB}), "accept-bytes").await
    })
    .await;
}
