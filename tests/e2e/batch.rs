//! Publishes many events at once, over REST and over gRPC.

use std::collections::HashSet;

use anyhow::{Result, ensure};
use outrider_proto::ingest::{
    BatchPublishEventsRequest, NewEvent, batch_publish_events_result::Result as Outcome,
};
use serde_json::{Value, json};

use crate::{
    scenario::{BOUND, Scenario, text},
    verify,
};

scenarios! {
    everywhere: [
        a_rest_batch_is_delivered,
        a_grpc_batch_is_delivered,
        a_full_batch_is_taken,
    ],
    by_process: [
        a_bad_item_fails_alone,
    ],
}

async fn a_rest_batch_is_delivered(scenario: &Scenario) -> Result<()> {
    let target = scenario.target("/batch", &["*"], json!({})).await?;
    let events: Vec<Value> = (0..100)
        .map(|number| json!({"event_type": "item.made", "data": {"number": number}}))
        .collect();
    let reply =
        scenario.rest.post(&scenario.path("events:batch"), &json!({"events": events})).await?;
    let results = reply["results"].as_array().cloned().unwrap_or_default();
    ensure!(results.len() == 100, "{reply}");
    scenario.arrived("/batch", 100, BOUND).await?;
    let ids: Vec<&str> =
        results.iter().filter_map(|result| result["accepted"]["event_id"].as_str()).collect();
    ensure!(ids.is_sorted(), "ids rise with the order of the request: {ids:?}");
    for (index, result) in results.iter().enumerate() {
        let id = text(&result["accepted"], "event_id")?;
        let received = scenario.receiver.received_of("/batch", &id);
        ensure!(
            received.len() == 1 && received[0].body == format!("{{\"number\":{index}}}"),
            "result {index}: {received:?}"
        );
        verify::genuine(&received[0], &target.secret)?;
    }
    Ok(())
}

async fn a_grpc_batch_is_delivered(scenario: &Scenario) -> Result<()> {
    let target = scenario.target("/batch", &["*"], json!({})).await?;
    let event = |number: u8| NewEvent {
        event_type: "item.made".to_owned(),
        payload: vec![number; 3].into(),
        content_type: "application/octet-stream".to_owned(),
        ..NewEvent::default()
    };
    let request = BatchPublishEventsRequest {
        project_id: scenario.project.clone(),
        events: (0..100).map(event).collect(),
    };
    let reply = scenario.grpc().await?.ingest().batch_publish_events(request).await?.into_inner();
    scenario.arrived("/batch", 100, BOUND).await?;
    for (number, result) in (0u8..).zip(reply.results) {
        let Some(Outcome::Accepted(accepted)) = result.result else {
            anyhow::bail!("not accepted: {result:?}")
        };
        let received = scenario.receiver.received_of("/batch", &accepted.event_id);
        ensure!(
            received.len() == 1 && received[0].body == vec![number; 3],
            "result {number}: {received:?}"
        );
        verify::genuine(&received[0], &target.secret)?;
    }
    Ok(())
}

async fn a_bad_item_fails_alone(scenario: &Scenario) -> Result<()> {
    scenario.target("/batch", &["*"], json!({})).await?;
    let events = json!({"events": [
        {"event_type": "good.one", "data": 1},
        {"event_type": "not good", "data": 2},
        {"event_type": "good.two", "data": 3, "idempotency_key": "k"},
        {"event_type": "good.two", "data": 3, "idempotency_key": "k"},
        {"event_type": "good.two", "data": 4, "idempotency_key": "k"},
    ]});
    let reply = scenario.rest.post(&scenario.path("events:batch"), &events).await?;
    let results = &reply["results"];
    text(&results[0]["accepted"], "event_id")?;
    ensure!(
        results[1]["error"]["reason"] == "INVALID_FIELD" && results[1]["error"]["code"] == 400,
        "{reply}"
    );
    ensure!(
        results[1]["error"]["violations"][0]["field"] == "events[1].event_type",
        "the field is named: {reply}"
    );
    let first = text(&results[2]["accepted"], "event_id")?;
    ensure!(
        results[3]["accepted"]["event_id"] == first.as_str()
            && results[3]["accepted"]["duplicate"] == true,
        "{reply}"
    );
    ensure!(
        results[4]["error"]["reason"] == "IDEMPOTENCY_CONFLICT"
            && results[4]["error"]["code"] == 409,
        "{reply}"
    );
    scenario.arrived("/batch", 2, BOUND).await?;
    let events = scenario.rest.get(&scenario.path("events")).await?;
    ensure!(events["events"].as_array().map(Vec::len) == Some(2), "{events}");
    Ok(())
}

async fn a_full_batch_is_taken(scenario: &Scenario) -> Result<()> {
    let events: Vec<Value> =
        (0..1_000).map(|number| json!({"event_type": "unheard", "data": number})).collect();
    let reply =
        scenario.rest.post(&scenario.path("events:batch"), &json!({"events": events})).await?;
    let ids: HashSet<String> = reply["results"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|result| text(&result["accepted"], "event_id").ok())
        .collect();
    ensure!(ids.len() == 1_000, "{} distinct ids", ids.len());
    // Paging through the list returns each event once.
    let mut listed = HashSet::new();
    let mut token = String::new();
    loop {
        let page = scenario
            .rest
            .get(&scenario.path(&format!("events?page_size=300&page_token={token}")))
            .await?;
        for event in page["events"].as_array().into_iter().flatten() {
            ensure!(listed.insert(text(event, "event_id")?), "listed twice: {event}");
        }
        token = page["next_page_token"].as_str().unwrap_or_default().to_owned();
        if token.is_empty() {
            break;
        }
    }
    ensure!(listed == ids, "{} of 1000 are listed", listed.len());
    Ok(())
}
