//! A Redis user that lacks a right. Processes name the right, no accepted event is lost, and
//! everything continues once it is granted.

use anyhow::{Context, Result, ensure};
use http::Method;
use outrider_tests::{Outrider, Shape, client::Rest, cluster::Options, servers::Redis, wait_until};
use serde_json::json;
use tokio::task::block_in_place;

use crate::{
    ledger::adds_up,
    scenario::{self, BOUND, Scenario, run_with_shares},
    telemetry::{scrapes, sum},
};

const PASSWORD: &str = "hunter2";
/// The metric of the refused right.
const WITHOUT_XADD: &str = "outrider_queue_refused{command=\"xadd\",needed=\"yes\"}";
const WITHOUT_INFO: &str = "outrider_queue_refused{command=\"info\",needed=\"no\"}";
const AVAILABLE: &str = "outrider_dispatch_queue_available";

/// Changes the user in Redis.
fn set_user(redis: &Redis, words: &str) -> Result<()> {
    let answer = block_in_place(|| redis.ask(&format!("ACL SETUSER outrider {words}")))?;
    ensure!(answer.starts_with("+OK"), "{words}: {answer}");
    Ok(())
}

/// Returns the line in docs/operations.md.
fn documented() -> Result<String> {
    let page = include_str!("../../docs/operations.md");
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix("ACL SETUSER outrider "))
        .context("no line")?;
    Ok(line.replace("PASSWORD", PASSWORD))
}

/// Returns the state of the processes at `/readyz`: how many are ready, and everything that the
/// others wait for.
async fn readiness(outrider: &Outrider) -> Option<(usize, String)> {
    let (mut ready, mut waiting) = (0, String::new());
    for address in outrider.operations() {
        let reply = Rest::new(&format!("http://{address}"), None)
            .send(Method::GET, "/readyz", "")
            .await
            .ok()?;
        let text = String::from_utf8(reply.body.to_vec()).ok()?;
        match reply.status {
            http::StatusCode::OK => ready += 1,
            http::StatusCode::SERVICE_UNAVAILABLE => waiting.push_str(&text),
            _ => return None,
        }
    }
    Some((ready, waiting))
}

/// Begins without all rights, loses one, and gets it back. `with_queue` is the number of processes
/// that have a queue.
async fn lost_and_granted(outrider: &Outrider, redis: &Redis, with_queue: usize) -> Result<()> {
    let all = outrider.operations().len();
    let scenario = Scenario::new(outrider).await?;
    scenario.target("/x", &["*"], json!({})).await?;
    let before = scenario.publish_id("a", json!({})).await?;
    scenario.delivery_in(&before, "DELIVERED").await?;
    ensure!(
        sum(&scrapes(outrider).await?, WITHOUT_INFO) > 0.0,
        "without INFO it works, and says so"
    );
    ensure!(
        outrider.logs(400).contains("INFO is refused"),
        "the log does not say that INFO is refused"
    );

    set_user(redis, "-xadd")?;
    let mut events = Vec::new();
    for _ in 0..20 {
        events.push(scenario.publish_id("a", json!({})).await?);
    }
    let mut last = None;
    let refused = wait_until("the processes with a queue are not ready", BOUND, async || {
        last = readiness(outrider).await;
        last.as_ref()
            .filter(|(ready, _)| all - ready == with_queue)
            .map(|(_, waiting)| waiting.clone())
    });
    let waiting = refused.await.with_context(|| format!("{last:?}"))?;
    for words in [
        "XADD is refused",
        "can't run this command or subcommand",
        "grant the user +xadd (docs/operations.md)",
    ] {
        ensure!(waiting.matches(words).count() == with_queue, "{words}: {waiting}");
    }
    ensure!(!waiting.contains(PASSWORD) && !waiting.contains("127.0.0.1"), "{waiting}");
    ensure!(
        outrider.logs(400).contains("XADD is refused"),
        "the log does not say that XADD is refused"
    );
    wait_until("the metrics tell it", BOUND, async || {
        let texts = scrapes(outrider).await.ok()?;
        (sum(&texts, WITHOUT_XADD) > 0.5 && sum(&texts, AVAILABLE) < 0.5).then_some(())
    })
    .await?;
    // Publishing continues.
    events.push(scenario.publish_id("a", json!({})).await?);

    set_user(redis, "+xadd")?;
    wait_until("all processes are ready", BOUND, async || {
        readiness(outrider).await.filter(|(ready, _)| *ready == all).map(drop)
    })
    .await?;
    for event in &events {
        scenario.delivery_in(event, "DELIVERED").await?;
    }
    wait_until("the metrics tell it", BOUND, async || {
        let texts = scrapes(outrider).await.ok()?;
        (sum(&texts, WITHOUT_XADD) < 0.5 && sum(&texts, AVAILABLE) > 0.5).then_some(())
    })
    .await?;
    ensure!(!outrider.logs(4_000).contains(PASSWORD), "the password is in a log");
    adds_up(outrider).map(drop)
}

async fn begins_without_info(shape: Shape, with_queue: usize) -> Result<()> {
    let redis = block_in_place(Redis::start)?;
    set_user(&redis, &format!("{} -info", documented()?))?;
    let url = format!("redis://outrider:{PASSWORD}@{}/0", redis.address());
    let more = json!({
        "queue": {"url": url, "prefix": "outrider"},
        "dispatch": {"measure_period": "200ms", "check_after": "3s"},
    });
    let outrider = block_in_place(|| {
        scenario::start(shape, &Options { more, ..Options::default() }, Some(&redis))
    })?;
    lost_and_granted(&outrider, &redis, with_queue)
        .await
        .map_err(|error| scenario::with_logs(&error, &outrider))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_is_lost_and_granted_in_one_process() {
    run_with_shares(1, async || begins_without_info(Shape::Postgres, 1).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_is_lost_and_granted_in_six_processes() {
    run_with_shares(2, async || begins_without_info(Shape::Mesh, 3).await).await;
}
