//! The key comes first: a caller without a good one is refused by the head of its request, on every surface.

use anyhow::{Context, Result, ensure};
use http::Method;
use outrider_tests::{client::exchange, wait_until};
use serde_json::json;

use crate::scenario::{BOUND, Scenario, text};

scenarios!(keys_come_before_bodies, a_revoked_key_is_refused_soon);

/// A key of the right form that nobody has.
const INVENTED: &str = "ork_00000000000000000000000001_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// The token of a new key, and its id.
async fn key(scenario: &Scenario, scope: &str) -> Result<(String, String)> {
    let new = json!({"name": "A caller", "project_id": scenario.project, "scopes": [scope]});
    let made = scenario.rest.post("/v1/api_keys", &new).await?;
    Ok((text(&made, "token")?, text(&made["api_key"], "api_key_id")?))
}

async fn keys_come_before_bodies(scenario: &Scenario) -> Result<()> {
    const GRPC: &str = "/outrider.ingest.v1.IngestService/PublishEvent";
    let (reader, _) = key(scenario, "SCOPE_PROJECTS_READ").await?;
    let callers = [
        (String::new(), "401", "16", "MISSING_CREDENTIALS"),
        ("Authorization: Bearer nonsense\r\n".to_owned(), "401", "16", "INVALID_CREDENTIALS"),
        (format!("Authorization: Bearer {INVENTED}\r\n"), "401", "16", "INVALID_CREDENTIALS"),
        (format!("Authorization: Bearer {reader}\r\n"), "403", "7", "MISSING_SCOPE"),
    ];
    let surfaces = [
        ("POST", scenario.path("events"), "application/json"),
        ("POST", scenario.path("events:batch"), "application/json"),
        ("POST", scenario.path("events:batch"), "application/x-ndjson"),
        ("GET", scenario.path("events:tail"), "application/json"),
        ("POST", scenario.path("endpoints"), "application/json"),
        ("POST", GRPC.to_owned(), "application/grpc-web+proto"),
        ("POST", GRPC.to_owned(), "application/grpc-web-text"),
    ];
    for (authorization, http, grpc, reason) in &callers {
        for (method, path, media_type) in &surfaces {
            let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{authorization}Content-Type: {media_type}\r\n");
            let asking = format!("{head}Content-Length: 5000000\r\nExpect: 100-continue\r\n\r\n");
            let half = format!("{head}Content-Length: 5000000\r\n\r\n{{");
            for request in [asking, half] {
                let answer = exchange(&scenario.address, [request.into_bytes()]).await?.text;
                let what = || format!("{path} as {media_type} with {reason}: {answer}");
                ensure!(!answer.contains(" 100 "), "the body was asked for: {}", what());
                if media_type.contains("grpc") {
                    ensure!(answer.contains(&format!("grpc-status: {grpc}\r\n")), what());
                } else {
                    ensure!(answer.starts_with(&format!("HTTP/1.1 {http} ")) && answer.contains(reason), what());
                }
            }
        }
    }
    Ok(())
}

async fn a_revoked_key_is_refused_soon(scenario: &Scenario) -> Result<()> {
    let (token, id) = key(scenario, "SCOPE_ENDPOINTS_READ").await?;
    let caller = scenario.rest.with_token(Some(&token));
    let path = scenario.path("endpoints");
    let status = async || Ok::<_, anyhow::Error>(caller.send(Method::GET, &path, "").await?.status);
    let good = wait_until("the new key is let in", BOUND, async || (status().await.ok()? == 200).then_some(()));
    good.await.context("a new key")?;
    scenario.rest.send(Method::DELETE, &format!("/v1/api_keys/{id}"), "").await?;
    let refused = wait_until("the revoked key is refused", BOUND, async || (status().await.ok()? == 401).then_some(()));
    refused.await.context("a revoked key")?;
    ensure!(status().await? == 401, "it is let in again");
    Ok(())
}
