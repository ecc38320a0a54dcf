//! A bad endpoint does not affect others, and deliveries that wait long are not sent twice.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use outrider_tests::{Answer, Shape, cluster::Options, usage, wait_until};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::{
    load::all_settled,
    scenario::{self, BOUND, SHARES, Scenario, run_with_shares, text},
};

/// What "promptly" means for a debug build on a loaded machine with two cores.
const PROMPT: Duration = Duration::from_secs(10);
const BATCH: usize = 1_000;
/// The number of requests whose end the receiver may not have noticed yet.
const NOTICED_LATE: usize = 16;

/// Returns how many deliveries wait for the hanging endpoint: OUTRIDER_TEST_BACKLOG, default
/// 20,000.
fn backlog() -> usize {
    std::env::var("OUTRIDER_TEST_BACKLOG").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000)
}

async fn publish_many(scenario: &Scenario, event_type: &str, count: usize) -> Result<()> {
    for _ in 0..count.div_ceil(BATCH) {
        let events: Vec<Value> = (0..BATCH)
            .map(|number| json!({"event_type": event_type, "data": {"number": number}}))
            .collect();
        let reply =
            scenario.rest.post(&scenario.path("events:batch"), &json!({"events": events})).await?;
        let refused = reply["results"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|result| !result["error"].is_null());
        ensure!(refused.is_none(), "{refused:?}");
    }
    Ok(())
}

async fn a_hanging_endpoint_hurts_nobody(shape: Shape) -> Result<()> {
    let options = Options { retry_schedule: vec!["1h".to_owned()], ..Options::default() };
    let outrider = block_in_place(|| scenario::start(shape, &options, None))?;
    let outcome = hang_and_deliver(&Scenario::new(&outrider).await?, &outrider.process_ids()).await;
    outcome.map_err(|error| scenario::with_logs(&error, &outrider))
}

async fn hang_and_deliver(scenario: &Scenario, processes: &[u32]) -> Result<()> {
    scenario.receiver.answer("/hanging", [Answer::Hang]);
    let hanging = scenario.endpoint("/hanging", json!({"timeout": "8s"})).await?;
    scenario.subscribe(&hanging, &["bad"]).await?;
    scenario.target("/good", &["good"], json!({})).await?;
    let (count, begin) = (backlog(), Instant::now());
    publish_many(scenario, "bad", count).await?;
    let published = begin.elapsed();
    wait_until("the hanging endpoint hangs", BOUND, async || {
        (scenario.receiver.peak("/hanging") > 0).then_some(())
    })
    .await?;

    let mut sent = Vec::new();
    for number in 0..200 {
        let at = Instant::now();
        sent.push((scenario.publish_id("good", json!(number)).await?, at));
    }
    scenario.arrived("/good", sent.len(), PROMPT).await?;
    let mut worst = Duration::ZERO;
    for (id, at) in &sent {
        let received = scenario.receiver.received_of("/good", id);
        ensure!(received.len() == 1, "{id} arrived {} times", received.len());
        worst = worst.max(received[0].at.duration_since(*at));
    }
    ensure!(worst < PROMPT, "an event of the good endpoint took {worst:?}");
    // Hanging requests end at their deadline. None is sent again before its time.
    let first_round = scenario.receiver.distinct("/hanging");
    wait_until(
        "the next ones are sent to the hanging endpoint",
        Duration::from_secs(60),
        async || (scenario.receiver.distinct("/hanging") > first_round).then_some(()),
    )
    .await?;
    ensure!(
        scenario.receiver.duplicates("/hanging") == 0,
        "something was sent twice to the hanging endpoint"
    );
    // The receiver notices the end of a request that timed out a moment after the worker has sent
    // the next one.
    let peak = scenario.receiver.peak("/hanging");
    ensure!(peak <= 64 + NOTICED_LATE, "{peak} requests were open at once");
    let resident = usage::of(processes).memory / 1_048_576;
    eprintln!(
        "{:?}: {count} waiting (accepted in {published:?}), slowest of the others {worst:?}, \
            {resident} MiB",
        scenario.shape
    );
    Ok(())
}

async fn jobs_beyond_their_lease_are_sent_once(shape: Shape) -> Result<()> {
    let options = Options {
        lease: "2s".to_owned(),
        retry_schedule: vec!["1h".to_owned()],
        ..Options::default()
    };
    let outrider = block_in_place(|| scenario::start(shape, &options, None))?;
    let outcome = wait_beyond_the_lease(&Scenario::new(&outrider).await?).await;
    outcome.map_err(|error| scenario::with_logs(&error, &outrider))
}

async fn wait_beyond_the_lease(scenario: &Scenario) -> Result<()> {
    // A thousand at once for three times the lease, and beside them a thousand, most of which wait
    // for room.
    scenario.receiver.answer("/wide", [Answer::After(Duration::from_secs(6), 200)]);
    scenario.receiver.answer("/narrow", [Answer::After(Duration::from_millis(500), 200)]);
    let wide =
        scenario.endpoint("/wide", json!({"max_in_flight": 1_024, "timeout": "30s"})).await?;
    scenario.subscribe(&wide, &["long"]).await?;
    let narrow = scenario
        .target("/narrow", &["long"], json!({"max_in_flight": 50, "timeout": "30s"}))
        .await?;
    publish_many(scenario, "long", 1_000).await?;
    scenario.arrived("/wide", 1_000, Duration::from_secs(60)).await?;
    scenario.arrived("/narrow", 1_000, Duration::from_secs(120)).await?;
    all_settled(scenario, BOUND).await?;
    for path in ["/wide", "/narrow"] {
        ensure!(
            scenario.receiver.duplicates(path) == 0,
            "{} were sent twice on {path}",
            scenario.receiver.duplicates(path)
        );
    }
    let page = scenario
        .rest
        .get(&scenario.path(&format!("deliveries?endpoint_id={}&page_size=500", narrow.id)))
        .await?;
    for delivery in page["deliveries"].as_array().into_iter().flatten() {
        ensure!(
            text(delivery, "status")? == "DELIVERY_STATUS_DELIVERED"
                && delivery["attempt_count"] == 1,
            "{delivery}"
        );
    }
    Ok(())
}

macro_rules! on_every_shape {
    ($($module:ident $shape:ident),+) => {
        $(mod $module {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn a_hanging_endpoint_hurts_nobody() {
                let shape = outrider_tests::Shape::$shape;
                super::run_with_shares(super::SHARES,
                    async || super::a_hanging_endpoint_hurts_nobody(shape).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn jobs_beyond_their_lease_are_sent_once() {
                let shape = outrider_tests::Shape::$shape;
                super::run_with_shares(super::SHARES,
                    async || super::jobs_beyond_their_lease_are_sent_once(shape).await).await;
            }
        })+
    };
}

on_every_shape!(sqlite Sqlite, postgres Postgres, mesh Mesh);
