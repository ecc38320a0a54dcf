//! Changes endpoints and subscriptions while events are on their way.

use anyhow::{Result, ensure};
use outrider_proto::admin::GetEndpointRequest;
use outrider_tests::{Answer, wait_until};
use serde_json::json;

use crate::scenario::{BOUND, Scenario, number, text};

scenarios! {
    everywhere: [
        a_paused_endpoint_gets_its_events_when_it_is_resumed,
        deleting_an_endpoint_cancels_visibly,
        a_changed_url_and_subscription_take_effect,
        max_in_flight_is_kept,
    ],
    by_storage: [
        endpoints_are_created_read_changed_and_listed,
    ],
}

async fn a_paused_endpoint_gets_its_events_when_it_is_resumed(scenario: &Scenario) -> Result<()> {
    let target = scenario.target("/paused", &["*"], json!({})).await?;
    let path = scenario.path(&format!("endpoints/{}?update_mask=state", target.id));
    let paused = scenario.rest.patch(&path, &json!({"state": "ENDPOINT_STATE_PAUSED"})).await?;
    ensure!(paused["state"] == "ENDPOINT_STATE_PAUSED", "{paused}");
    scenario.settle().await?;
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(scenario.publish_id("a", json!(number)).await?);
    }
    for id in &ids {
        let held = wait_until("the delivery says that its endpoint is paused", BOUND, async || {
            let delivery = scenario.delivery(id).await.ok()?;
            (delivery["reason"] == "DELIVERY_REASON_ENDPOINT_PAUSED").then_some(delivery)
        });
        let held = held.await?;
        ensure!(
            held["status"] == "DELIVERY_STATUS_PENDING" && number(&held, "attempt_count") == 0,
            "{held}"
        );
    }
    ensure!(scenario.receiver.distinct("/paused") == 0, "a paused endpoint was sent to");
    scenario.rest.patch(&path, &json!({"state": "ENDPOINT_STATE_ACTIVE"})).await?;
    scenario.arrived("/paused", 5, BOUND).await?;
    for id in &ids {
        scenario.delivery_in(id, "DELIVERED").await?;
    }
    ensure!(scenario.receiver.duplicates("/paused") == 0, "sent twice");
    Ok(())
}

async fn deleting_an_endpoint_cancels_visibly(scenario: &Scenario) -> Result<()> {
    scenario.receiver.answer("/gone", [Answer::Hang]);
    let target =
        scenario.target("/gone", &["*"], json!({"max_in_flight": 1, "timeout": "2s"})).await?;
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(scenario.publish_id("a", json!(number)).await?);
    }
    scenario.rest.delete(&scenario.path(&format!("endpoints/{}", target.id))).await?;
    for id in &ids {
        let delivery = scenario.delivery_in(id, "CANCELLED").await?;
        ensure!(
            delivery["reason"] == "DELIVERY_REASON_ENDPOINT_DELETED"
                && delivery["finish_time"].is_string(),
            "{delivery}"
        );
    }
    let endpoint = scenario.path(&format!("endpoints/{}", target.id));
    let reply = scenario.rest.send(http::Method::GET, &endpoint, "").await?;
    ensure!(reply.status == 404 && reply.reason() == "NOT_FOUND", "{reply:?}");
    let subscriptions = scenario.rest.get(&scenario.path("subscriptions")).await?;
    ensure!(
        subscriptions["subscriptions"].as_array().is_none_or(Vec::is_empty),
        "its subscriptions are gone: {subscriptions}"
    );
    scenario.settle().await?;
    let after = scenario.publish(json!({"event_type": "a", "data": {}})).await?;
    ensure!(number(&after, "delivery_count") == 0, "{after}");
    let retry = scenario.delivery(&ids[0]).await?;
    let retry = scenario.path(&format!("deliveries/{}:retry", text(&retry, "delivery_id")?));
    let reply = scenario.rest.send(http::Method::POST, &retry, "{}").await?;
    ensure!(reply.reason() == "FAILED_PRECONDITION", "{reply:?}");
    Ok(())
}

async fn a_changed_url_and_subscription_take_effect(scenario: &Scenario) -> Result<()> {
    let target = scenario.endpoint("/old", json!({})).await?;
    let subscription = scenario.subscribe(&target, &["a"]).await?;
    scenario.settle().await?;
    let first = scenario.publish_id("a", json!(1)).await?;
    scenario.delivery_in(&first, "DELIVERED").await?;
    let changed = json!({"http": {"url": scenario.receiver.url("/new")}});
    scenario
        .rest
        .patch(&scenario.path(&format!("endpoints/{}?update_mask=http", target.id)), &changed)
        .await?;
    let changed = json!({"event_types": ["b.*"]});
    scenario
        .rest
        .patch(
            &scenario.path(&format!("subscriptions/{subscription}?update_mask=event_types")),
            &changed,
        )
        .await?;
    scenario.settle().await?;
    let unheard = scenario.publish(json!({"event_type": "a", "data": 2})).await?;
    ensure!(number(&unheard, "delivery_count") == 0, "{unheard}");
    let arrived = wait_until("an event comes to the new URL", BOUND, async || {
        let id = scenario.publish_id("b.c", json!(3)).await.ok()?;
        scenario.delivery_in(&id, "DELIVERED").await.ok()?;
        (scenario.receiver.distinct("/new") > 0).then_some(())
    });
    arrived.await
}

async fn endpoints_are_created_read_changed_and_listed(scenario: &Scenario) -> Result<()> {
    let made = scenario
        .endpoint("/crud", json!({"timeout": "2.5s", "max_in_flight": 7, "metadata": {"a": "b"}}))
        .await?;
    let path = scenario.path(&format!("endpoints/{}", made.id));
    let read = scenario.rest.get(&path).await?;
    ensure!(
        read["http"]["url"] == scenario.receiver.url("/crud") && read["max_in_flight"] == 7,
        "{read}"
    );
    ensure!(
        read["timeout"] == "2.500s"
            && read["state"] == "ENDPOINT_STATE_ACTIVE"
            && read["metadata"]["a"] == "b",
        "{read}"
    );
    ensure!(
        !read.to_string().contains("whsec_"),
        "the secret is only where it is asked for: {read}"
    );
    let secret = scenario.rest.get(&format!("{path}/secret")).await?;
    ensure!(secret["secret"] == made.secret.as_str(), "the secret is kept");
    let changed = scenario.rest.patch(&path, &json!({"description": "changed"})).await?;
    ensure!(changed["description"] == "changed" && changed["max_in_flight"] == 7, "{changed}");

    for number in 0..5 {
        scenario
            .endpoint(
                &format!("/crud{number}"),
                json!({"owner_id": if number < 2 { "x" } else { "y" }}),
            )
            .await?;
    }
    let first = scenario.rest.get(&scenario.path("endpoints?page_size=4")).await?;
    let token = text(&first, "next_page_token")?;
    let second = scenario
        .rest
        .get(&scenario.path(&format!("endpoints?page_size=4&page_token={token}")))
        .await?;
    let lengths = [&first, &second].map(|page| page["endpoints"].as_array().map_or(0, Vec::len));
    ensure!(lengths == [4, 2], "{lengths:?}");
    let owned = scenario.rest.get(&scenario.path("endpoints?owner_id=x")).await?;
    ensure!(owned["endpoints"].as_array().map(Vec::len) == Some(2), "{owned}");

    let request =
        GetEndpointRequest { project_id: scenario.project.clone(), endpoint_id: made.id.clone() };
    let endpoint = scenario
        .grpc()
        .await?
        .endpoints()
        .get_endpoint(request)
        .await?
        .into_inner()
        .endpoint
        .unwrap_or_default();
    ensure!(endpoint.description == "changed" && endpoint.max_in_flight == 7, "{endpoint:?}");
    Ok(())
}

async fn max_in_flight_is_kept(scenario: &Scenario) -> Result<()> {
    scenario
        .receiver
        .answer("/narrow", [Answer::After(std::time::Duration::from_millis(100), 200)]);
    scenario.target("/narrow", &["*"], json!({"max_in_flight": 3})).await?;
    let events: Vec<_> = (0..30).map(|number| json!({"event_type": "a", "data": number})).collect();
    scenario.rest.post(&scenario.path("events:batch"), &json!({"events": events})).await?;
    scenario.arrived("/narrow", 30, BOUND).await?;
    let peak = scenario.receiver.peak("/narrow");
    ensure!((1..=3).contains(&peak), "{peak} requests were open at once");
    Ok(())
}
