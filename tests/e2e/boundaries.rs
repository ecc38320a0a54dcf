//! Who may see and do what: projects, keys and scopes.

use std::time::Duration;

use anyhow::{Result, ensure};
use http::Method;
use outrider_proto::{
    dispatch::GetDeliveryRequest,
    internal::{AcceptEventsRequest, intake_service_client::IntakeServiceClient},
};
use outrider_tests::{
    client::{Grpc, Reply, Rest},
    wait_until,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;

use crate::scenario::{Scenario, text};

scenarios! {
    everywhere: [
        ids_of_other_projects_are_not_found,
        a_revoked_key_is_refused_within_five_seconds,
    ],
    by_process: [
        keys_are_needed_and_bounded,
        strangers_are_not_served_between_roles,
    ],
}

/// Creates a key with these scopes, bound to the project if there is one, and returns its id and
/// token.
async fn key(
    scenario: &Scenario,
    project: Option<&str>,
    scopes: &[&str],
) -> Result<(String, String)> {
    let scopes: Vec<_> = scopes.iter().map(|scope| format!("SCOPE_{scope}")).collect();
    let made = scenario
        .rest
        .post("/v1/api_keys", &json!({"name": "a key", "project_id": project, "scopes": scopes}))
        .await;
    let made: Value = made?;
    Ok((text(&made["api_key"], "api_key_id")?, text(&made, "token")?))
}

fn refused(reply: &Reply, status: u16, reason: &str) -> Result<()> {
    ensure!(
        reply.status == status && reply.reason() == reason,
        "expected {status} {reason}: {reply:?}"
    );
    Ok(())
}

async fn ids_of_other_projects_are_not_found(scenario: &Scenario) -> Result<()> {
    let target = scenario.endpoint("/mine", json!({})).await?;
    let subscription = scenario.subscribe(&target, &["*"]).await?;
    scenario.settle().await?;
    let event = scenario.publish_id("a", json!({})).await?;
    let delivery = text(&scenario.delivery_in(&event, "DELIVERED").await?, "delivery_id")?;
    let attempt = text(&scenario.attempts(&delivery).await?[0], "attempt_id")?;
    let other = text(
        &scenario.rest.post("/v1/projects", &json!({"name": "Another"})).await?,
        "project_id",
    )?;
    let (_, bound) = key(scenario, Some(&other), &["ADMIN"]).await?;
    let stranger = scenario.rest.with_token(Some(&bound));

    let of_mine = [
        format!("events/{event}"),
        format!("deliveries/{delivery}"),
        format!("attempts/{attempt}"),
        format!("endpoints/{}", target.id),
        format!("endpoints/{}/secret", target.id),
        format!("subscriptions/{subscription}"),
    ];
    for path in &of_mine {
        ensure!(
            scenario.rest.send(Method::GET, &scenario.path(path), "").await?.status == 200,
            "{path} is there for its owner"
        );
        // In the other project, and in this project with a key that is bound to the other one.
        refused(
            &scenario.rest.send(Method::GET, &format!("/v1/projects/{other}/{path}"), "").await?,
            404,
            "NOT_FOUND",
        )?;
        refused(&stranger.send(Method::GET, &scenario.path(path), "").await?, 404, "NOT_FOUND")?;
    }
    for (method, path, body) in [
        (Method::POST, "events".to_owned(), "{\"event_type\":\"a\",\"data\":1}"),
        (Method::POST, format!("deliveries/{delivery}:retry"), "{}"),
        (Method::PATCH, format!("endpoints/{}", target.id), "{\"description\":\"x\"}"),
        (Method::DELETE, format!("endpoints/{}", target.id), ""),
        (Method::DELETE, format!("subscriptions/{subscription}"), ""),
    ] {
        refused(&stranger.send(method, &scenario.path(&path), body).await?, 404, "NOT_FOUND")?;
    }
    refused(&stranger.send(Method::GET, &scenario.path("events"), "").await?, 404, "NOT_FOUND")?;
    let subscribe =
        json!({"endpoint_id": target.id, "name": "n", "event_types": ["*"]}).to_string();
    let reply = stranger
        .send(Method::POST, &format!("/v1/projects/{other}/subscriptions"), subscribe)
        .await?;
    ensure!(reply.status.is_client_error(), "a foreign endpoint was subscribed: {reply:?}");
    let grpc = Grpc::connect(&scenario.url, &bound).await?;
    let request =
        GetDeliveryRequest { project_id: scenario.project.clone(), delivery_id: delivery };
    let reply = grpc.deliveries().get_delivery(request).await;
    ensure!(reply.as_ref().is_err_and(|status| status.code() == Code::NotFound), "{reply:?}");
    Ok(())
}

async fn keys_are_needed_and_bounded(scenario: &Scenario) -> Result<()> {
    let events = scenario.path("events");
    refused(
        &scenario.rest.with_token(None).send(Method::GET, &events, "").await?,
        401,
        "MISSING_CREDENTIALS",
    )?;
    for token in [
        "nonsense",
        "ork_",
        "ork_01h455vb4pex5vsknk084sn02q_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ] {
        refused(
            &scenario.rest.with_token(Some(token)).send(Method::GET, &events, "").await?,
            401,
            "INVALID_CREDENTIALS",
        )?;
    }
    let (_, publisher) = key(scenario, Some(&scenario.project), &["EVENTS_PUBLISH"]).await?;
    let publisher = scenario.rest.with_token(Some(&publisher));
    publisher.post(&events, &json!({"event_type": "a", "data": {}})).await?;
    refused(&publisher.send(Method::GET, &events, "").await?, 403, "MISSING_SCOPE")?;
    refused(
        &publisher.send(Method::GET, &scenario.path("endpoints"), "").await?,
        403,
        "MISSING_SCOPE",
    )?;

    let (_, maker) = key(scenario, Some(&scenario.project), &["API_KEYS_WRITE"]).await?;
    let more = json!({"name": "more", "project_id": scenario.project, "scopes": ["SCOPE_ADMIN"]})
        .to_string();
    let reply =
        scenario.rest.with_token(Some(&maker)).send(Method::POST, "/v1/api_keys", more).await?;
    refused(&reply, 403, "BEYOND_OWN_SCOPE")
}

async fn a_revoked_key_is_refused_within_five_seconds(scenario: &Scenario) -> Result<()> {
    let (id, token) = key(
        scenario,
        Some(&scenario.project),
        &["EVENTS_PUBLISH", "EVENTS_READ", "ENDPOINTS_READ"],
    )
    .await?;
    let caller: Rest = scenario.rest.with_token(Some(&token));
    // Each role that serves public methods has seen the key.
    let asks = [
        (Method::POST, scenario.path("events"), "{\"event_type\":\"a\",\"data\":1}"),
        (Method::GET, scenario.path("events"), ""),
        (Method::GET, scenario.path("endpoints"), ""),
    ];
    for (method, path, body) in &asks {
        caller.send(method.clone(), path, *body).await?.success()?;
    }
    scenario.rest.delete(&format!("/v1/api_keys/{id}")).await?;
    wait_until("every role refuses the revoked key", Duration::from_secs(5), async || {
        for (method, path, body) in &asks {
            if caller.send(method.clone(), path, *body).await.ok()?.status != 401 {
                return None;
            }
        }
        Some(())
    })
    .await
}

/// The other scenarios show that the roles serve each other.
async fn strangers_are_not_served_between_roles(scenario: &Scenario) -> Result<()> {
    let Some((dispatch, egress)) = &scenario.internal else { return Ok(()) };
    let mut intake = IntakeServiceClient::connect(format!("http://{dispatch}")).await?;
    let refused = intake
        .accept_events(AcceptEventsRequest::default())
        .await
        .err()
        .map(|status| status.code());
    ensure!(
        refused == Some(tonic::Code::Unauthenticated),
        "dispatch served a stranger: {refused:?}"
    );

    let receiver = scenario.receiver.url("");
    let receiver = receiver.trim_start_matches("http://");
    let mut stream = tokio::net::TcpStream::connect(egress).await?;
    stream
        .write_all(format!("CONNECT {receiver} HTTP/1.1\r\nHost: {receiver}\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure!(answer.starts_with("HTTP/1.1 407 "), "the egress served a stranger: {answer}");
    Ok(())
}
