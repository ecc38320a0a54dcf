//! StreamEvents when connections break and processes end: every event is stored once.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, stream::iter};
use outrider_model::Reason;
use outrider_tests::{Outrider, Proxy, Shape, client::Producer, cluster::Options, wait_until};
use serde_json::json;
use tokio::{sync::watch, task::block_in_place};
use tonic::Status;

use crate::{
    load::all_settled,
    scenario::{self, SHARES, Scenario, run_with_shares, text},
    stream::numbered,
};

/// How long the last deliveries may take.
const RECOVERY: Duration = Duration::from_secs(240);

/// Returns the events and cuts of the large run. `OUTRIDER_TEST_STREAM_EVENTS` changes the former.
fn large() -> (usize, usize) {
    let events =
        std::env::var("OUTRIDER_TEST_STREAM_EVENTS").ok().and_then(|text| text.parse().ok());
    (events.unwrap_or(20_000), 100)
}

/// A generator whose seed is printed, so that a run can be repeated.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seed = u64::from(now.subsec_nanos()) | 1;
        eprintln!("seed {seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        // The constants of Knuth's MMIX.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_every_event_once_over_a_hundred_cut_connections() {
    let (events, cuts) = large();
    run_with_shares(SHARES, async || cut_again_and_again(Shape::Postgres, events, cuts).await)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_every_event_once_over_cut_connections() {
    run_with_shares(2, async || cut_again_and_again(Shape::Sqlite, 5_000, 25).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mesh_every_event_once_over_cut_connections() {
    run_with_shares(2, async || cut_again_and_again(Shape::Mesh, 5_000, 25).await).await;
}

async fn cut_again_and_again(shape: Shape, events: usize, cuts: usize) -> Result<()> {
    let outrider = block_in_place(|| scenario::start(shape, &Options::default(), None))?;
    let scenario = Scenario::new(&outrider).await?;
    let outcome = publish_through_cuts(&scenario, &outrider, events, cuts).await;
    outcome.map_err(|error| scenario::with_logs(&error, &outrider))
}

async fn publish_through_cuts(
    scenario: &Scenario,
    outrider: &Outrider,
    events: usize,
    cuts: usize,
) -> Result<()> {
    scenario.target("/once", &["item.made"], json!({"max_in_flight": 512})).await?;
    let proxy = Proxy::start(&outrider.address()).await?;
    let mut producer =
        Producer::new(&proxy.url(), &scenario.token, &scenario.project, "cut-again-and-again")?;
    let (acknowledged, begin) = (AtomicU64::new(0), Instant::now());
    let (done, made) = watch::channel(0);
    let share = events / cuts;
    let cutting = async {
        let mut dice = Dice::new();
        for cut in 0..cuts {
            // Spread over the run, each at a random moment of its share.
            let from = (share * cut) as u64;
            wait_until("the producer gets on", RECOVERY, async || {
                (acknowledged.load(Ordering::Relaxed) >= from).then_some(())
            })
            .await?;
            tokio::time::sleep(Duration::from_micros(dice.below(30_000))).await;
            wait_until("a connection is open", RECOVERY, async || (proxy.cut() > 0).then_some(()))
                .await?;
            done.send_replace(cut + 1);
        }
        anyhow::Ok(())
    };
    // At most two shares ahead of the cuts, and the last one after them, so that every cut hits a
    // connection in use.
    let numbers = iter(1..=events).then(|number| {
        let mut made = made.clone();
        async move {
            let behind = if number == events { cuts } else { (number / share).saturating_sub(2) };
            // Cuts that failed report their own error.
            let _ = made.wait_for(|made| *made >= behind).await;
            numbered(number)
        }
    });
    let mut numbers = Box::pin(numbers);
    let publishing =
        producer.publish(&mut numbers, |upto| acknowledged.store(upto, Ordering::Relaxed));
    tokio::try_join!(publishing, cutting)?;
    eprintln!(
        "{events} events over {} connections in {:?}, {} of them sent again after they were \
            durable",
        producer.connections,
        begin.elapsed(),
        producer.duplicates
    );
    // Some are cut before the producer knows that it is connected.
    ensure!(
        producer.connections as usize > cuts * 9 / 10,
        "only {} connections",
        producer.connections
    );
    ensure!(
        producer.accepted == events as u64 && producer.rejections.is_empty(),
        "{} accepted",
        producer.accepted
    );
    once_each(scenario, "/once", events).await
}

/// Asserts that every number from 1 is one event in the store and one delivery at the receiver,
/// without duplicates or gaps.
async fn once_each(scenario: &Scenario, path: &str, events: usize) -> Result<()> {
    scenario.arrived(path, events, RECOVERY).await?;
    all_settled(scenario, RECOVERY).await?;
    let mut ids_of = HashMap::new();
    for received in scenario.receiver.received(path) {
        let number: usize = std::str::from_utf8(&received.body)?.parse()?;
        let before = ids_of.insert(number, received.id().to_owned());
        ensure!(
            before.is_none(),
            "number {number} arrived twice: {before:?} and {}",
            received.id()
        );
    }
    ensure!(
        ids_of.len() == events && (1..=events).all(|number| ids_of.contains_key(&number)),
        "{} numbers",
        ids_of.len()
    );
    let arrived: HashSet<String> = ids_of.into_values().collect();
    let mut stored = HashSet::new();
    let mut token = String::new();
    loop {
        let page = scenario
            .rest
            .get(&scenario.path(&format!("events?page_size=500&page_token={token}")))
            .await?;
        for event in page["events"].as_array().into_iter().flatten() {
            ensure!(stored.insert(text(event, "event_id")?), "listed twice: {event}");
        }
        token = page["next_page_token"].as_str().unwrap_or_default().to_owned();
        if token.is_empty() {
            break;
        }
    }
    ensure!(stored == arrived, "{} stored, {} arrived", stored.len(), arrived.len());
    Ok(())
}

/// Publishes slowly enough that `fault` happens in the middle, and checks the result. Returns how
/// the connections ended.
async fn in_mid_stream(
    scenario: &Scenario,
    url: &str,
    events: usize,
    fault: impl FnOnce() -> Result<()>,
) -> Result<Vec<Status>> {
    scenario.target("/mid", &["item.made"], json!({})).await?;
    let mut producer = Producer::new(url, &scenario.token, &scenario.project, "mid-stream")?;
    let mut fault = Some(fault);
    let mut outcome = Ok(());
    let mut numbers = iter((1..=events).map(numbered));
    producer
        .publish(&mut numbers, |upto| {
            if upto * 3 > events as u64
                && let Some(fault) = fault.take()
            {
                // The producer stops in the meantime, with events in flight.
                outcome = block_in_place(fault);
            }
        })
        .await?;
    outcome?;
    ensure!(
        fault.is_none() && producer.accepted == events as u64,
        "{} accepted",
        producer.accepted
    );
    once_each(scenario, "/mid", events).await?;
    Ok(producer.ends)
}

/// Whether a status of Outrider has this reason.
fn says(status: &Status, reason: Reason) -> bool {
    String::from_utf8_lossy(status.details()).contains(reason.as_str())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_a_replica_takes_over_at_shutdown() {
    run_with_shares(2, async || {
        let mut outrider =
            block_in_place(|| scenario::start(Shape::Postgres, &Options::default(), None))?;
        let scenario = Scenario::new(&outrider).await?;
        let proxy = Proxy::start(&outrider.address()).await?;
        let replica = block_in_place(|| outrider.start_another("all"))?;
        // The scenario uses the process that stays.
        let rest =
            outrider_tests::client::Rest::new(&format!("http://{replica}"), Some(&scenario.token));
        let scenario = Scenario { rest, ..scenario };
        let url = proxy.url();
        let ends = in_mid_stream(&scenario, &url, 10_000, || {
            proxy.turn_to(&replica);
            let begin = Instant::now();
            let status = outrider.terminate("all", Duration::from_secs(40))?;
            ensure!(status.success(), "ended with {status}");
            ensure!(
                begin.elapsed() < Duration::from_secs(20),
                "the stream held the shutdown for {:?}",
                begin.elapsed()
            );
            Ok(())
        });
        let ends = ends.await?;
        ensure!(ends.len() == 1 && says(&ends[0], Reason::ShuttingDown), "{ends:?}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mesh_a_gateway_and_an_ingest_that_end_send_the_client_elsewhere() {
    run_with_shares(2, async || {
        for role in ["gateway", "ingest"] {
            let mut outrider =
                block_in_place(|| scenario::start(Shape::Mesh, &Options::default(), None))?;
            let scenario = Scenario::new(&outrider).await?;
            let url = scenario.url.clone();
            let ends = in_mid_stream(&scenario, &url, 3_000, || {
                let begin = Instant::now();
                let status = outrider.terminate(role, Duration::from_secs(40))?;
                ensure!(status.success(), "{role} ended with {status}");
                ensure!(
                    begin.elapsed() < Duration::from_secs(9),
                    "{role} took {:?}, as if it had cut the stream",
                    begin.elapsed()
                );
                outrider.restart(role)?;
                outrider.ready()
            });
            let ends = ends.await.with_context(|| role.to_owned())?;
            ensure!(
                ends.first().is_some_and(|end| says(end, Reason::ShuttingDown)),
                "{role}: {ends:?}"
            );
        }
        Ok(())
    })
    .await;
}
