//! Tenants that make many more calls than others, and expensive ones.

use std::time::Duration;

use anyhow::{Context, Result};
use http::Method;
use outrider_tests::{Answer, Limits, attacker::EVENT_TYPE, client::Reply};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::foe::Foe;

/// The pause after a refusal that asks to try again.
const REFUSED: Duration = Duration::from_millis(50);

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

async fn call(
    foe: &Foe,
    method: Method,
    path: &str,
    body: impl Into<bytes::Bytes>,
) -> Result<Reply> {
    let reply = foe.tenant.rest.send(method, path, body).await?;
    if [429, 503].contains(&reply.status.as_u16()) {
        sleep(REFUSED).await;
    }
    Ok(reply)
}

/// Creates a project with endpoints that answer at once.
async fn answering(foe: &Foe, endpoints: usize) -> Result<String> {
    Ok(foe.tenant.endpoints(endpoints, Limits::DEFAULT, &Answer::Status(200)).await?.0)
}

fn event(number: usize) -> String {
    json!({"event_type": EVENT_TYPE, "data": {"number": number, "filler": "x".repeat(500)}})
        .to_string()
}

/// Publishes more events than all others together.
pub async fn publish_flood(foe: Foe) -> Result<()> {
    let path = format!("{}/events", answering(&foe, 1).await?);
    foe.callers(foe.of(8, 2), foe.of(millis(5), millis(40)), move |foe, number| {
        let path = path.clone();
        async move { call(&foe, Method::POST, &path, event(number)).await.map(drop) }
    })
    .await
}

/// Publishes events that each go to many endpoints.
pub async fn fan_out(foe: Foe) -> Result<()> {
    let path = format!("{}/events", answering(&foe, foe.of(200, 20)).await?);
    foe.callers(1, foe.of(millis(400), millis(500)), move |foe, number| {
        let path = path.clone();
        async move { call(&foe, Method::POST, &path, event(number)).await.map(drop) }
    })
    .await
}

/// Sends batches with so many empty events that they are refused while they are decoded, and full
/// batches.
pub async fn batches(foe: Foe) -> Result<()> {
    const EMPTY: usize = 1_900_000;
    let path = format!("{}/events:batch", answering(&foe, 1).await?);
    let empty: bytes::Bytes = format!("{{\"events\":[{}]}}", vec!["{}"; EMPTY].join(",")).into();
    let full = json!({"events": (0..foe.of(1_000, 100)).map(|_| json!({"event_type": "nobody",
        "data": "x".repeat(4_000)})).collect::<Vec<_>>()});
    let full: bytes::Bytes = full.to_string().into();
    foe.callers(foe.of(2, 1), foe.of(millis(300), millis(4_000)), move |foe, number| {
        let (path, body) =
            (path.clone(), if number % 2 == 0 { full.clone() } else { empty.clone() });
        async move { call(&foe, Method::POST, &path, body).await.map(drop) }
    })
    .await
}

/// Repeats a few idempotency keys with different events.
pub async fn idempotency_keys(foe: Foe) -> Result<()> {
    let path = format!("{}/events", answering(&foe, 1).await?);
    foe.callers(foe.of(4, 1), foe.of(millis(10), millis(50)), move |foe, number| {
        let body = json!({"event_type": EVENT_TYPE, "idempotency_key": format!("k{}",
            number % 50), "data": number % 70});
        let path = path.clone();
        async move { call(&foe, Method::POST, &path, body.to_string()).await.map(drop) }
    })
    .await
}

/// Requests the largest pages of every list.
pub async fn lists(foe: Foe) -> Result<()> {
    let project = answering(&foe, 1).await?;
    let events = json!({"events": (0..500).map(|number| json!({"event_type": EVENT_TYPE,
        "data": number})).collect::<Vec<_>>()});
    for _ in 0..foe.of(4, 1) {
        call(&foe, Method::POST, &format!("{project}/events:batch"), events.to_string()).await?;
    }
    foe.callers(foe.of(4, 1), foe.of(millis(5), millis(100)), move |foe, number| {
        let kind = ["events", "deliveries", "attempts", "endpoints", "subscriptions"][number % 5];
        let path = format!("{project}/{kind}?page_size=500");
        async move { call(&foe, Method::GET, &path, "").await.map(drop) }
    })
    .await
}

/// Creates and deletes endpoints, subscriptions, secrets and keys continually.
pub async fn churn(foe: Foe) -> Result<()> {
    let project = answering(&foe, 1).await?;
    foe.callers(foe.of(2, 1), foe.of(millis(10), millis(100)), move |foe, number| {
        let project = project.clone();
        async move { come_and_go(&foe, &project, number).await }
    })
    .await
}

async fn come_and_go(foe: &Foe, project: &str, number: usize) -> Result<()> {
    let endpoint =
        foe.tenant.endpoint(project, &foe.receiver.url("/churn"), Limits::DEFAULT).await?;
    let path = format!("{project}/endpoints/{endpoint}");
    let update =
        json!({"max_in_flight": 1 + number % 1_000, "metadata": {"n": number.to_string()}})
            .to_string();
    call(foe, Method::PATCH, &path, update).await?;
    call(foe, Method::GET, &format!("{path}/secret"), "").await?;
    let key = json!({"name": "churn", "scopes": ["SCOPE_EVENTS_PUBLISH"]}).to_string();
    let key = call(foe, Method::POST, "/v1/api_keys", key).await?;
    if let Some(id) = key.json()?["api_key"]["api_key_id"].as_str() {
        call(foe, Method::DELETE, &format!("/v1/api_keys/{id}"), "").await?;
    }
    call(foe, Method::DELETE, &path, "").await.map(drop)
}

/// Retries deliveries that have ended, repeatedly.
pub async fn retries(foe: Foe) -> Result<()> {
    const EVENTS: usize = 20;
    let project = answering(&foe, 1).await?;
    foe.tenant.publish(&project, EVENTS, 100).await?;
    let page = foe.tenant.rest.get(&format!("{project}/deliveries?page_size=100")).await?;
    let deliveries = page["deliveries"].as_array().cloned().unwrap_or_default();
    let ids: Vec<String> = deliveries
        .iter()
        .map(|one| one["delivery_id"].as_str().unwrap_or_default().to_owned())
        .collect();
    ids.first().context("nothing to retry")?;
    foe.callers(foe.of(4, 1), foe.of(millis(10), millis(50)), move |foe, number| {
        let path = format!("{project}/deliveries/{}:retry", ids[number % ids.len()]);
        async move { call(&foe, Method::POST, &path, "{}").await.map(drop) }
    })
    .await
}

/// Publishes payloads whose schemas are expensive to validate.
pub async fn schemas(foe: Foe) -> Result<()> {
    let project = answering(&foe, 1).await?;
    let validate = json!({"schema_validation": "SCHEMA_VALIDATION_REJECT"}).to_string();
    call(&foe, Method::PATCH, &project, validate).await?.success()?;
    let schema = json!({"event_type": EVENT_TYPE, "schema": {"uniqueItems": true,
        "items": {"uniqueItems": true}}});
    call(&foe, Method::POST, &format!("{project}/event-types"), schema.to_string())
        .await?
        .success()?;
    let data: Vec<Value> =
        (0..foe.of(2_000, 300)).map(|number| json!([{"a": number}, {"a": [number]}])).collect();
    let event: bytes::Bytes = json!({"event_type": EVENT_TYPE, "data": data}).to_string().into();
    let path = format!("{project}/events");
    foe.callers(foe.of(4, 1), foe.of(millis(20), millis(400)), move |foe, _| {
        let (path, event) = (path.clone(), event.clone());
        async move { call(&foe, Method::POST, &path, event).await.map(drop) }
    })
    .await
}
