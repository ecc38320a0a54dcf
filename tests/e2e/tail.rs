//! Tails of events and deliveries, over every surface.

use std::{collections::HashSet, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use outrider_proto::dispatch::{
    DeliveryStatus, TailDeliveriesRequest, TailEventsRequest, TailEventsResponse,
    tail_deliveries_response, tail_events_response,
};
use outrider_tests::{
    Answer, Outrider, Shape,
    client::{Event, EventSource, Grpc, WebStream},
    cluster::Options,
};
use prost::Message as _;
use serde_json::json;
use tokio::task::block_in_place;
use tonic::{Code, Streaming};

use crate::scenario::{self, BOUND, Scenario, run_with_shares, text};

scenarios! {
    everywhere: [
        every_way_tells_the_same,
        a_tail_goes_on_from_every_event,
        deliveries_are_told_with_their_attempts,
        a_revoked_key_ends_its_tails,
    ],
    by_process: [
        only_what_is_asked_for_comes,
        bad_cursors_are_refused,
    ],
}

const TAIL: &str = "/outrider.dispatch.v1.EventService/TailEvents";

impl Scenario {
    fn tail_request(&self) -> TailEventsRequest {
        TailEventsRequest { project_id: self.project.clone(), ..TailEventsRequest::default() }
    }

    /// Opens a tail over REST, and reads its first heartbeat.
    async fn event_source(&self, query: &str, last_event_id: &str) -> Result<EventSource> {
        let path = self.path(&format!("events:tail{query}"));
        let mut source =
            EventSource::open(&self.address, &path, &self.token, last_event_id).await?;
        let first = source.next().await?.context("it ended at once")?;
        ensure!(first.name == "heartbeat" && !first.id.is_empty(), "{first:?}");
        Ok(source)
    }

    async fn publish_many(&self, count: usize) -> Result<Vec<String>> {
        let mut ids = Vec::with_capacity(count);
        for number in 0..count {
            ids.push(self.publish_id("tail.one", json!({"number": number})).await?);
        }
        Ok(ids)
    }
}

/// Returns the next event that is not a heartbeat.
async fn of_source(source: &mut EventSource) -> Result<Event> {
    loop {
        let event = source.next().await?.context("the stream ended")?;
        match event.name.as_str() {
            "heartbeat" => {}
            "error" => bail!("{}", event.data),
            _ => return Ok(event),
        }
    }
}

/// Returns the id of the event in a message.
fn event_id(message: TailEventsResponse) -> Option<String> {
    match message.update? {
        tail_events_response::Update::Event(event) => Some(event.event_id),
        tail_events_response::Update::Heartbeat(_) => None,
    }
}

async fn of_grpc(stream: &mut Streaming<TailEventsResponse>) -> Result<String> {
    loop {
        if let Some(id) = event_id(stream.message().await?.context("the stream ended")?) {
            return Ok(id);
        }
    }
}

async fn of_web(stream: &mut WebStream) -> Result<String> {
    loop {
        if let Some(id) = event_id(TailEventsResponse::decode(stream.next().await?)?) {
            return Ok(id);
        }
    }
}

async fn every_way_tells_the_same(scenario: &Scenario) -> Result<()> {
    let mut grpc =
        scenario.grpc().await?.events().tail_events(scenario.tail_request()).await?.into_inner();
    ensure!(
        event_id(grpc.message().await?.context("it ended")?).is_none(),
        "a heartbeat comes first"
    );
    let request = scenario.tail_request().encode_to_vec();
    let mut web = WebStream::open(&scenario.address, TAIL, &scenario.token, &request).await?;
    ensure!(
        event_id(TailEventsResponse::decode(web.next().await?)?).is_none(),
        "a heartbeat comes first"
    );
    let mut source = scenario.event_source("?include_payload=true", "").await?;
    let published: HashSet<String> = scenario.publish_many(30).await?.into_iter().collect();
    let mut told = Vec::new();
    for _ in 0..published.len() {
        let id = tokio::time::timeout(BOUND, of_grpc(&mut grpc)).await??;
        ensure!(of_web(&mut web).await? == id, "the order is one");
        let event = of_source(&mut source).await?;
        ensure!(event.data["event"]["event_id"] == id.as_str(), "the order is one: {event:?}");
        ensure!(
            event.data["event"]["data"]["number"].is_u64()
                && event.data["cursor"] == event.id.as_str(),
            "{event:?}"
        );
        told.push(id);
    }
    ensure!(told.into_iter().collect::<HashSet<_>>() == published, "each once");
    Ok(())
}

async fn a_tail_goes_on_from_every_event(scenario: &Scenario) -> Result<()> {
    let mut source = scenario.event_source("", "").await?;
    let published = scenario.publish_many(12).await?;
    let mut events = Vec::new();
    while events.len() < published.len() {
        events.push(of_source(&mut source).await?);
    }
    for (index, event) in events.iter().enumerate() {
        let mut rest = scenario.event_source("", &event.id).await?;
        for expected in &events[index + 1..] {
            let next = of_source(&mut rest).await?;
            ensure!(next.data == expected.data, "after {index}: {next:?} is not {expected:?}");
        }
    }
    // Over gRPC with the same cursors.
    let request = TailEventsRequest { cursor: events[5].id.clone(), ..scenario.tail_request() };
    let mut grpc = scenario.grpc().await?.events().tail_events(request).await?.into_inner();
    ensure!(
        of_grpc(&mut grpc).await? == text(&events[6].data["event"], "event_id")?,
        "the next one"
    );
    Ok(())
}

async fn deliveries_are_told_with_their_attempts(scenario: &Scenario) -> Result<()> {
    scenario.receiver.answer("/tailed", [Answer::Status(503), Answer::Status(200)]);
    let target = scenario.target("/tailed", &["tail.*"], json!({})).await?;
    let request = |statuses: &[DeliveryStatus]| TailDeliveriesRequest {
        project_id: scenario.project.clone(),
        endpoint_id: target.id.clone(),
        statuses: statuses.iter().map(|status| (*status).into()).collect(),
        ..TailDeliveriesRequest::default()
    };
    let mut all =
        scenario.grpc().await?.deliveries().tail_deliveries(request(&[])).await?.into_inner();
    let mut failed = scenario
        .grpc()
        .await?
        .deliveries()
        .tail_deliveries(request(&[DeliveryStatus::Failed]))
        .await?
        .into_inner();
    all.message().await?;
    failed.message().await?;
    let event = scenario.publish_id("tail.one", json!(1)).await?;
    let mut attempts = Vec::new();
    while attempts.len() < 2 {
        let message = tokio::time::timeout(BOUND, all.message()).await??.context("it ended")?;
        let Some(tail_deliveries_response::Update::Delivery(update)) = message.update else {
            continue;
        };
        let (delivery, attempt) =
            (update.delivery.context("no delivery")?, update.attempt.context("no attempt")?);
        ensure!(
            delivery.event_id == event && attempt.delivery_id == delivery.delivery_id,
            "{delivery:?}"
        );
        attempts.push((attempt.number, attempt.status_code));
    }
    ensure!(attempts == [(1, 503), (2, 200)], "{attempts:?}");
    // Nothing failed, so the other tail has only heartbeats, the first of which was read. The same
    // filters work over REST.
    let path = scenario.path(&format!(
        "deliveries:tail?endpoint_id={}&statuses=DELIVERY_STATUS_DELIVERED",
        target.id
    ));
    let mut source = EventSource::open(&scenario.address, &path, &scenario.token, "").await?;
    source.next().await?;
    scenario.publish_id("tail.two", json!(2)).await?;
    let told = of_source(&mut source).await?;
    ensure!(
        told.name == "delivery"
            && told.data["delivery"]["delivery"]["status"] == "DELIVERY_STATUS_DELIVERED",
        "{told:?}"
    );
    ensure!(told.data["delivery"]["attempt"]["attempt_id"].is_string(), "{told:?}");
    let message = tokio::time::timeout(Duration::from_secs(20), failed.message())
        .await??
        .context("it ended")?;
    ensure!(
        matches!(message.update, Some(tail_deliveries_response::Update::Heartbeat(_))),
        "{message:?}"
    );
    Ok(())
}

async fn only_what_is_asked_for_comes(scenario: &Scenario) -> Result<()> {
    let mut source = scenario.event_source("?event_types=wanted.*&event_types=alone", "").await?;
    for event_type in ["other", "wanted.one", "wanted", "alone", "wanted.two.three"] {
        scenario.publish(json!({"event_type": event_type, "data": 1})).await?;
    }
    for expected in ["wanted.one", "alone", "wanted.two.three"] {
        let event = of_source(&mut source).await?;
        ensure!(
            event.data["event"]["event_type"] == expected
                && event.data["event"].get("data").is_none(),
            "{event:?}"
        );
    }
    Ok(())
}

async fn a_revoked_key_ends_its_tails(scenario: &Scenario) -> Result<()> {
    let key =
        json!({"name": "tail", "project_id": scenario.project, "scopes": ["SCOPE_EVENTS_READ"]});
    let made = scenario.rest.post("/v1/api_keys", &key).await?;
    let (id, token) = (text(&made["api_key"], "api_key_id")?, text(&made, "token")?);
    let grpc = Grpc::connect(&scenario.url, &token).await?;
    let mut stream = grpc.events().tail_events(scenario.tail_request()).await?.into_inner();
    let mut source =
        EventSource::open(&scenario.address, &scenario.path("events:tail"), &token, "").await?;
    stream.message().await?;
    source.next().await?;
    scenario.rest.delete(&format!("/v1/api_keys/{id}")).await?;
    let ended = async {
        loop {
            if let Err(status) = stream.message().await {
                return status;
            }
        }
    };
    let status =
        tokio::time::timeout(BOUND, ended).await.context("the tail goes on without a key")?;
    ensure!(status.code() == Code::Unauthenticated, "{status:?}");
    loop {
        let event = source.next().await?.context("it ended without a word")?;
        if event.name == "error" {
            ensure!(event.data["error"]["reason"] == "INVALID_CREDENTIALS", "{event:?}");
            break;
        }
    }
    ensure!(source.next().await?.is_none(), "it goes on");
    Ok(())
}

async fn bad_cursors_are_refused(scenario: &Scenario) -> Result<()> {
    let mut source = scenario.event_source("", "").await?;
    scenario.publish_id("tail.one", json!(1)).await?;
    let cursor = of_source(&mut source).await?.id;
    let refused = async |path: String| {
        let reply = scenario.rest.send(http::Method::GET, &path, "").await?;
        anyhow::Ok((reply.status.as_u16(), reply.reason(), reply.fields()))
    };
    let field = |status: u16| (status, "INVALID_FIELD".to_owned(), vec!["cursor".to_owned()]);
    for path in
        [format!("events:tail?cursor={}", &cursor[1..]), format!("deliveries:tail?cursor={cursor}")]
    {
        let answer = refused(scenario.path(&path)).await?;
        ensure!(answer == field(400), "{path}: {answer:?}");
    }
    let other = scenario.rest.post("/v1/projects", &json!({"name": "Another"})).await?;
    let path = format!("/v1/projects/{}/events:tail?cursor={cursor}", text(&other, "project_id")?);
    ensure!(refused(path).await? == field(400), "a cursor is of one project");
    let missing = refused(format!("/v1/projects/{}x/events:tail", scenario.project)).await?;
    ensure!(missing.0 == 400 && missing.2 == ["project_id"], "{missing:?}");
    Ok(())
}

/// Follows a tail, harms Outrider in the middle, resumes at the last cursor, and misses nothing.
async fn followed(
    outrider: &mut Outrider,
    harm: impl FnOnce(&mut Outrider) -> Result<()>,
) -> Result<()> {
    let scenario = Scenario::new(outrider).await?;
    let mut source = scenario.event_source("", "").await?;
    let before = scenario.publish_many(20).await?;
    let (mut seen, mut last) = (Vec::new(), String::new());
    // Half of them are read. The rest are in flight or in the log when it happens.
    while seen.len() < 10 {
        let event = of_source(&mut source).await?;
        seen.push(text(&event.data["event"], "event_id")?);
        last = event.id;
    }
    block_in_place(|| harm(outrider))?;
    let after = scenario.publish_many(20).await?;
    let read = async {
        while seen.len() < before.len() + after.len() {
            match of_source(&mut source).await {
                Ok(event) => {
                    seen.push(text(&event.data["event"], "event_id")?);
                    last = event.id;
                }
                Err(_) => {
                    if let Ok(opened) = scenario.event_source("", &last).await {
                        source = opened;
                    }
                }
            }
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(4 * BOUND, read).await.context("some events are never told")??;
    let told: HashSet<&String> = seen.iter().collect();
    ensure!(
        told.len() == seen.len() && told == before.iter().chain(&after).collect(),
        "all once: {} of 40",
        told.len()
    );
    Ok(())
}

async fn over_a_restart(shape: Shape, role: &'static str, kill: bool) {
    run_with_shares(2, async || {
        let mut outrider = block_in_place(|| scenario::start(shape, &Options::default(), None))?;
        let harm = |outrider: &mut Outrider| {
            if kill {
                outrider.kill(role)?;
            } else {
                // Open tails do not delay the end.
                let status = outrider.terminate(role, Duration::from_secs(8))?;
                ensure!(status.success(), "{role} ended with {status}");
            }
            outrider.restart(role)?;
            outrider.ready()
        };
        let outcome = followed(&mut outrider, harm).await;
        outcome.map_err(|error| scenario::with_logs(&error, &outrider))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_is_followed_over_a_restart_of_the_process() {
    over_a_restart(Shape::Sqlite, "all", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_is_followed_over_a_restart_of_dispatch() {
    over_a_restart(Shape::Mesh, "dispatch", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_is_followed_over_a_crash_of_dispatch() {
    over_a_restart(Shape::Mesh, "dispatch", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_is_followed_over_a_restart_of_the_gateway() {
    over_a_restart(Shape::Mesh, "gateway", false).await;
}
