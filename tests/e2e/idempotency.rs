//! Publishing again with the same key.

use std::collections::HashSet;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use http::Method;
use outrider_proto::ingest::{NewEvent, PublishEventRequest};
use serde_json::json;
use tonic::Code;

use crate::scenario::{BOUND, Scenario, flag, text};

scenarios! {
    everywhere: [
        fifty_callers_make_one_event,
        another_event_under_the_key_is_refused,
    ],
    by_storage: [
        keys_of_projects_are_apart,
    ],
}

async fn fifty_callers_make_one_event(scenario: &Scenario) -> Result<()> {
    scenario.target("/once", &["*"], json!({})).await?;
    let event = json!({"event_type": "order.paid", "data": {"n": 1}, "idempotency_key": "order-1"});
    let replies = try_join_all((0..50).map(|_| scenario.publish(event.clone()))).await?;
    let ids: HashSet<String> =
        replies.iter().map(|reply| text(reply, "event_id")).collect::<Result<_>>()?;
    ensure!(ids.len() == 1, "{ids:?}");
    let firsts = replies.iter().filter(|reply| !flag(reply, "duplicate")).count();
    ensure!(firsts == 1, "{firsts} callers were told that theirs is the first");
    let later = scenario.publish(event).await?;
    ensure!(flag(&later, "duplicate") && ids.contains(&text(&later, "event_id")?), "{later}");
    scenario.arrived("/once", 1, BOUND).await?;
    let id = ids.into_iter().next().unwrap_or_default();
    scenario.delivery_in(&id, "DELIVERED").await?;
    ensure!(scenario.receiver.received("/once").len() == 1, "delivered more than once");
    let events = scenario.rest.get(&scenario.path("events")).await?;
    ensure!(events["events"].as_array().map(Vec::len) == Some(1), "{events}");
    Ok(())
}

async fn another_event_under_the_key_is_refused(scenario: &Scenario) -> Result<()> {
    let event = json!({"event_type": "order.paid", "data": {"n": 1}, "idempotency_key": "order-2"});
    let first = text(&scenario.publish(event.clone()).await?, "event_id")?;
    for other in [
        json!({"data": {"n": 2}}),
        json!({"event_type": "order.lost"}),
        json!({"headers": {"x-a": "b"}}),
    ] {
        let mut changed = event.clone();
        for (key, value) in other.as_object().into_iter().flatten() {
            changed[key] = value.clone();
        }
        let reply =
            scenario.rest.send(Method::POST, &scenario.path("events"), changed.to_string()).await?;
        ensure!(
            reply.status == 409 && reply.reason() == "IDEMPOTENCY_CONFLICT",
            "{changed}: {reply:?}"
        );
    }
    let event = NewEvent {
        event_type: "order.paid".to_owned(),
        payload: "{\"n\":3}".into(),
        idempotency_key: "order-2".to_owned(),
        ..NewEvent::default()
    };
    let request =
        PublishEventRequest { project_id: scenario.project.clone(), event: Some(event.clone()) };
    let refused = scenario.grpc().await?.ingest().publish_event(request).await;
    ensure!(
        refused.as_ref().is_err_and(|status| status.code() == Code::AlreadyExists),
        "{refused:?}"
    );
    // The same bytes over another surface are the same event.
    let same = NewEvent { payload: "{\"n\":1}".into(), ..event };
    let request = PublishEventRequest { project_id: scenario.project.clone(), event: Some(same) };
    let same = scenario.grpc().await?.ingest().publish_event(request).await?.into_inner();
    ensure!(same.duplicate && same.event_id == first, "{same:?}");
    Ok(())
}

async fn keys_of_projects_are_apart(scenario: &Scenario) -> Result<()> {
    let event = json!({"event_type": "order.paid", "data": {}, "idempotency_key": "shared"});
    let here = scenario.publish(event.clone()).await?;
    let other = text(
        &scenario.rest.post("/v1/projects", &json!({"name": "Another"})).await?,
        "project_id",
    )?;
    let there = scenario.rest.post(&format!("/v1/projects/{other}/events"), &event).await?;
    ensure!(!flag(&there, "duplicate") && here["event_id"] != there["event_id"], "{here} {there}");
    Ok(())
}
