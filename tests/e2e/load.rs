//! Steady publishing, and the reckoning afterwards: nothing lost, and no more duplicates than allowed.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use http::Method;
use outrider_tests::wait_until;
use serde_json::json;

use crate::scenario::{Scenario, text};

/// How long a caller goes on trying to have one event accepted.
const PATIENCE: Duration = Duration::from_secs(90);
/// Within so long of the last acceptance everything has arrived: the promise after a loss of Redis is a minute.
const RECOVERY: Duration = Duration::from_secs(75);

/// Publishes events of type `load`, one every `pause`, each under a key of its own and again until it is accepted, as a careful
/// producer does. The ids of the accepted events.
pub async fn publish_steadily(scenario: &Scenario, count: usize, pause: Duration) -> Result<HashSet<String>> {
    let begin = Instant::now();
    let callers = (0..count).map(|number| async move {
        let turn = begin + pause * u32::try_from(number)?;
        tokio::time::sleep_until(turn.into()).await;
        publish_until_accepted(scenario, number).await
    });
    Ok(try_join_all(callers).await?.into_iter().collect())
}

async fn publish_until_accepted(scenario: &Scenario, number: usize) -> Result<String> {
    let event =
        json!({"event_type": "load", "data": {"number": number}, "idempotency_key": format!("load-{number}")}).to_string();
    let mut last = String::new();
    let accepted = wait_until("an event is accepted", PATIENCE, async || {
        match scenario.rest.send(Method::POST, &scenario.path("events"), event.clone()).await {
            Ok(reply) if reply.status.is_success() => Some(reply.json().and_then(|reply| text(&reply, "event_id"))),
            Ok(reply) if reply.status.is_client_error() && reply.status != 429 => {
                Some(Err(anyhow::anyhow!("{}: {}", reply.status, String::from_utf8_lossy(&reply.body))))
            }
            Ok(reply) => {
                last = format!("{}: {}", reply.status, String::from_utf8_lossy(&reply.body));
                None
            }
            Err(error) => {
                last = format!("{error:#}");
                None
            }
        }
    });
    accepted.await.with_context(|| format!("the last answer: {last}"))?
}

/// Every accepted event arrived, nothing else did, and at most so many requests came in excess.
pub async fn reckon(scenario: &Scenario, path: &str, accepted: &HashSet<String>, count: usize, excess: usize) -> Result<()> {
    ensure!(accepted.len() == count, "{count} events have {} ids", accepted.len());
    scenario.arrived(path, count, RECOVERY).await?;
    all_settled(scenario, RECOVERY).await?;
    let counts = scenario.receiver.counts(path);
    let arrived: HashSet<String> = counts.keys().cloned().collect();
    ensure!(arrived == *accepted, "not the accepted events arrived: {:?}", arrived.symmetric_difference(accepted));
    let duplicates = scenario.receiver.duplicates(path);
    eprintln!("{count} events, {duplicates} duplicates");
    ensure!(duplicates <= excess, "{duplicates} duplicates; at most {excess} were in flight");
    Ok(())
}

/// Waits until no delivery of the project is pending.
pub async fn all_settled(scenario: &Scenario, bound: Duration) -> Result<()> {
    let pending = scenario.path("deliveries?status=DELIVERY_STATUS_PENDING&page_size=1");
    wait_until("no delivery is pending", bound, async || {
        let page = scenario.rest.get(&pending).await.ok()?;
        page["deliveries"].as_array().is_none_or(Vec::is_empty).then_some(())
    })
    .await
}
