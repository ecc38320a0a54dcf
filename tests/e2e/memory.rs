//! The memory that a request costs: nothing without a key, and a few times its size with one,
//! whatever its contents.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future::join_all, stream};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrider_tests::{Outrider, Shape, client::exchange, cluster::Options, usage, wait_until};
use tokio::net::TcpStream;

use crate::scenario::{self, BOUND, Scenario, run_with_shares};

const MIB: u64 = 1024 * 1024;
/// What a process may use for a while in addition to the request: buffers of connections, and
/// caches that fill.
const BESIDE: u64 = 16 * MIB;
/// The time of idleness within which memory must return.
const IDLE: Duration = Duration::from_secs(60);
/// How many requests of a flood are in flight at once.
const AT_ONCE: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_requests_cost_a_few_times_their_size() {
    run_with_shares(scenario::SHARES, async || {
        requests_cost_a_few_times_their_size(Shape::Sqlite).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mesh_requests_cost_a_few_times_their_size() {
    run_with_shares(scenario::SHARES, async || {
        requests_cost_a_few_times_their_size(Shape::Mesh).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_memory_returns_after_a_flood() {
    run_with_shares(scenario::SHARES, async || memory_returns_after_a_flood(Shape::Sqlite).await)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mesh_memory_returns_after_a_flood() {
    run_with_shares(scenario::SHARES, async || memory_returns_after_a_flood(Shape::Mesh).await)
        .await;
}

/// Returns the largest growth of any process while this ran.
async fn growth(outrider: &Outrider, work: impl Future<Output = Result<()>>) -> Result<u64> {
    let processes = outrider.process_ids();
    let mut before = Vec::new();
    for process in &processes {
        usage::forget_peak(*process).context("the peak of a process is not forgotten")?;
        before.push(usage::peak(*process));
    }
    ensure!(before.iter().all(|memory| *memory > MIB), "nothing is measured: {before:?}");
    work.await?;
    let grown = processes
        .iter()
        .zip(before)
        .map(|(process, before)| usage::peak(*process).saturating_sub(before));
    Ok(grown.max().unwrap_or(0))
}

/// Sends a batch over REST, and returns the status and the body.
async fn batch(scenario: &Scenario, key: Option<&str>, body: &str) -> Result<(u16, String)> {
    let authorization =
        key.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\n{authorization}Content-Type: application/json\r\n\
            Content-Length: {}\r\nConnection: close\r\n\r\n",
        scenario.path("events:batch"),
        body.len()
    );
    let answer = exchange(&scenario.address, [head.into_bytes(), body.as_bytes().to_vec()]).await?;
    Ok((answer.status, answer.text))
}

/// Sends a message over gRPC, and returns the headers or trailers with the status.
async fn call(scenario: &Scenario, method: &str, message: &[u8]) -> Result<HeaderMap> {
    let io = TokioIo::new(TcpStream::connect(&scenario.address).await?);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
    tokio::spawn(connection);
    let frame = [&[0], u32::try_from(message.len())?.to_be_bytes().as_slice(), message].concat();
    let request = Request::post(format!("{}{method}", scenario.url))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {}", scenario.token))
        .body(Full::new(Bytes::from(frame)))?;
    let answer = tokio::time::timeout(BOUND, sender.send_request(request))
        .await
        .context("the server hangs")??;
    if answer.headers().contains_key("grpc-status") {
        return Ok(answer.headers().clone());
    }
    let body = answer.into_body().collect().await?;
    body.trailers().cloned().context("no trailers")
}

/// After large bodies with and without a key, and many connections that are never used, each
/// process has at most one and a half times the memory that it had before.
async fn memory_returns_after_a_flood(shape: Shape) -> Result<()> {
    let outrider = scenario::start(shape, &Options::default(), None)?;
    let scenario = Scenario::new(&outrider).await?;
    let outcome = async {
        let events = |event: &str, count: usize| {
            format!("{{\"events\":[{}]}}", vec![event; count].join(","))
        };
        let small = events("{\"event_type\":\"a\",\"data\":1}", 1);
        for _ in 0..100 {
            ensure!(batch(&scenario, Some(&scenario.token), &small).await?.0 == 200);
        }
        let processes = outrider.process_ids();
        let resident =
            || processes.iter().map(|process| usage::resident(*process)).collect::<Vec<_>>();
        let before = resident();
        processes.iter().try_for_each(|process| usage::forget_peak(*process))?;

        let large =
            events(&format!("{{\"event_type\":\"a\",\"data\":\"{}\"}}", "x".repeat(4_000)), 1_000);
        let empty = events("{}", 1_500_000);
        let silent: Vec<_> = (0..200).map(|_| TcpStream::connect(&scenario.address)).collect();
        let silent = join_all(silent).await;
        let bodies = [
            (Some(scenario.token.as_str()), &large),
            (Some(scenario.token.as_str()), &empty),
            (None, &large),
        ];
        let flood = (0..48).map(|number| {
            let (key, body) = bodies[number % bodies.len()];
            batch(&scenario, key, body)
        });
        // Few at once, because a key whose share is used up would have all of them refused.
        let answers: Vec<_> = stream::iter(flood).buffer_unordered(AT_ONCE).try_collect().await?;
        ensure!(answers.iter().any(|(status, _)| *status == 200), "nothing was accepted");
        drop(silent);
        let peak = processes.iter().map(|process| usage::peak(*process)).collect::<Vec<_>>();
        ensure!(
            peak.iter().zip(&before).any(|(peak, before)| *peak > before + 16 * MIB),
            "no flood: {before:?}, {peak:?}"
        );

        let mut after = Vec::new();
        let returned = wait_until("memory has returned", IDLE, async || {
            after = resident();
            let small = |(after, before): (&u64, &u64)| *after * 2 <= before * 3;
            after.iter().zip(&before).all(small).then_some(())
        });
        returned
            .await
            .with_context(|| format!("before {before:?}, at most {peak:?}, after {after:?}"))
    };
    outcome.await.map_err(|error: anyhow::Error| scenario::with_logs(&error, &outrider))
}

async fn requests_cost_a_few_times_their_size(shape: Shape) -> Result<()> {
    let outrider = scenario::start(shape, &Options::default(), None)?;
    let scenario = Scenario::new(&outrider).await?;
    let outcome = async {
        let events = |event: &str, count: usize| {
            format!("{{\"events\":[{}]}}", vec![event; count].join(","))
        };
        let good =
            events(&format!("{{\"event_type\":\"a\",\"data\":\"{}\"}}", "x".repeat(4_000)), 1_000);
        // The first use of a part takes memory permanently.
        ensure!(batch(&scenario, Some(&scenario.token), &good).await?.0 == 200);

        let empty = events("{}", 1_900_000);
        let grown = growth(&outrider, async {
            for _ in 0..3 {
                let (status, answer) = batch(&scenario, None, &empty).await?;
                ensure!(status == 401, "{answer}");
            }
            Ok(())
        });
        let grown = grown.await?;
        ensure!(
            grown < BESIDE,
            "a batch of {} bytes without a key took {grown} bytes",
            empty.len()
        );

        let headers = (0..32)
            .map(|number| format!("\"x-{number}\":\"{}\"", "v".repeat(60)))
            .collect::<Vec<_>>()
            .join(",");
        let maps = events(
            &format!(
                "{{\"event_type\":\"a\",\"data\":1,\
                \"headers\":{{{headers}}},\"metadata\":{{{headers}}}}}"
            ),
            1_000,
        );
        for (what, body, status) in
            [("empty events", &empty, 400), ("payloads", &good, 200), ("maps", &maps, 200)]
        {
            let grown = growth(&outrider, async {
                let (answered, answer) = batch(&scenario, Some(&scenario.token), body).await?;
                ensure!(answered == status, "{what}: {answer:.2000}");
                ensure!(
                    status == 200 || answer.contains("events: must have at most 1000 entries"),
                    "{answer:.2000}"
                );
                Ok(())
            });
            let (grown, size) = (grown.await?, body.len() as u64);
            ensure!(grown < 8 * size + BESIDE, "{what} of {size} bytes took {grown} bytes");
        }

        let mut message = vec![0x0a, u8::try_from(scenario.project.len())?];
        message.extend_from_slice(scenario.project.as_bytes());
        message.extend_from_slice(&[0x12, 0].repeat(3_000_000));
        let grown = growth(&outrider, async {
            let status =
                call(&scenario, "/outrider.ingest.v1.IngestService/BatchPublishEvents", &message)
                    .await?;
            ensure!(status["grpc-status"] == "3", "{status:?}");
            let text = status["grpc-message"].to_str()?;
            ensure!(text.contains("events") && text.contains("1000"), "{text}");
            Ok(())
        });
        let grown = grown.await?;
        ensure!(
            grown < 2 * message.len() as u64 + BESIDE,
            "3,000,000 empty events took {grown} bytes"
        );
        Ok(())
    };
    outcome.await.map_err(|error: anyhow::Error| scenario::with_logs(&error, &outrider))
}
