//! Values of endpoints that serve as secrets: those of headers, and the queries of URLs. They are
//! sent to the endpoint, and only callers with the right scope see them.

use anyhow::{Context, Result, ensure};
use http::Method;
use outrider_proto::admin::{
    Endpoint, GetEndpointRequest, ListEndpointsRequest, UpdateEndpointRequest, endpoint::Target,
};
use outrider_tests::{Answer, client::Grpc, wait_until};
use serde_json::{Value, json};

use crate::scenario::{BOUND, Scenario, text};

scenarios! {
    everywhere: [
        values_go_to_the_endpoint_and_nowhere_else,
    ],
    by_storage: [
        readers_and_lists_see_masks,
        a_mask_that_is_sent_back_is_refused,
    ],
}

const HEADER: &str = "marker-of-a-header";
const QUERY: &str = "key=marker-of-a-query";

fn shows(text: &str) -> bool {
    text.contains(HEADER) || text.contains(QUERY)
}

fn fields(scenario: &Scenario, path: &str) -> Value {
    json!({"http": {"url": format!("{}?{QUERY}", scenario.receiver.url(path))},
        "headers": {"X-Key": HEADER}})
}

async fn key(scenario: &Scenario, scopes: &[&str]) -> Result<String> {
    let new = json!({"name": "a key", "project_id": scenario.project, "scopes": scopes});
    text(&scenario.rest.post("/v1/api_keys", &new).await?, "token")
}

async fn values_go_to_the_endpoint_and_nowhere_else(scenario: &Scenario) -> Result<()> {
    let target = scenario.target("/sealed", &["a"], fields(scenario, "/sealed")).await?;
    let url = format!("http://nobody.outrider-tests.example.com/?{QUERY}");
    let nowhere = json!({"http": {"url": url}, "headers": {"x-key": HEADER}});
    scenario.target("/nowhere", &["b"], nowhere).await?;
    scenario.receiver.answer("/sealed", [Answer::Status(500), Answer::Status(200)]);
    let event = scenario.publish_id("a", json!({})).await?;
    let delivery = text(&scenario.delivery_in(&event, "DELIVERED").await?, "delivery_id")?;
    let received = scenario.receiver.received_of("/sealed", &event);
    ensure!(received.len() == 2, "{received:?}");
    ensure!(
        received.iter().all(|one| one.header("x-key") == HEADER && one.query == QUERY),
        "{received:?}"
    );

    let lost = scenario.publish_id("b", json!({})).await?;
    let failed = wait_until("an attempt failed", BOUND, async || {
        let delivery = text(&scenario.delivery(&lost).await.ok()?, "delivery_id").ok()?;
        (!scenario.attempts(&delivery).await.ok()?.is_empty()).then_some(delivery)
    });
    let failed = failed.await?;
    let mut paths = vec![
        format!("events/{event}"),
        format!("events/{lost}"),
        format!("deliveries/{delivery}"),
        format!("deliveries/{failed}"),
    ];
    paths.extend(["events", "deliveries", "subscriptions", "endpoints"].map(str::to_owned));
    paths.push(format!("deliveries/{delivery}/attempts"));
    paths.push(format!("deliveries/{failed}/attempts"));
    for attempt in scenario.attempts(&failed).await? {
        ensure!(attempt["error_message"].is_string(), "{attempt}");
        paths.push(format!("attempts/{}", text(&attempt, "attempt_id")?));
    }
    for path in paths {
        let shown = scenario.rest.get(&scenario.path(&path)).await?.to_string();
        ensure!(!shows(&shown), "{path}: {shown}");
    }
    let secret =
        scenario.rest.get(&scenario.path(&format!("endpoints/{}/secret", target.id))).await?;
    ensure!(!shows(&secret.to_string()), "{secret}");
    Ok(())
}

async fn readers_and_lists_see_masks(scenario: &Scenario) -> Result<()> {
    let target = scenario.endpoint("/masked", fields(scenario, "/masked")).await?;
    let path = scenario.path(&format!("endpoints/{}", target.id));
    let (whole, masked) = (
        format!("{}?{QUERY}", scenario.receiver.url("/masked")),
        format!("{}?…", scenario.receiver.url("/masked")),
    );
    let is = |endpoint: &Value, url: &str, value: &str| {
        endpoint["http"]["url"] == url && endpoint["headers"]["x-key"] == value
    };
    for (scopes, shows_values) in [
        (&["SCOPE_ENDPOINTS_READ"][..], false),
        (&["SCOPE_ENDPOINTS_READ", "SCOPE_ENDPOINTS_WRITE"], true),
        (&["SCOPE_ADMIN"], true),
    ] {
        let token = key(scenario, scopes).await?;
        let (url, value) =
            if shows_values { (whole.as_str(), HEADER) } else { (masked.as_str(), "…") };
        let rest = scenario.rest.with_token(Some(&token));
        let read = rest.get(&path).await?;
        ensure!(is(&read, url, value), "{scopes:?}: {read}");
        let secret = rest.send(Method::GET, &format!("{path}/secret"), "").await?;
        ensure!(
            secret.status.is_success() == shows_values,
            "what shows one shows the other: {secret:?}"
        );
        let listed = rest.get(&scenario.path("endpoints")).await?;
        ensure!(
            listed["endpoints"]
                .as_array()
                .is_some_and(|all| all.iter().all(|one| is(one, &masked, "…"))),
            "{listed}"
        );

        let grpc = match &scenario.authority {
            Some(authority) => Grpc::trusting(&scenario.url, &token, authority).await?,
            None => Grpc::connect(&scenario.url, &token).await?,
        };
        let request = GetEndpointRequest {
            project_id: scenario.project.clone(),
            endpoint_id: target.id.clone(),
        };
        let read = grpc
            .endpoints()
            .get_endpoint(request)
            .await?
            .into_inner()
            .endpoint
            .context("an endpoint")?;
        ensure!(read.headers["x-key"] == value && url_of(&read) == url, "{scopes:?}: {read:?}");
        let request = ListEndpointsRequest {
            project_id: scenario.project.clone(),
            ..ListEndpointsRequest::default()
        };
        let listed = grpc.endpoints().list_endpoints(request).await?.into_inner().endpoints;
        ensure!(
            listed.iter().all(|one| one.headers["x-key"] == "…" && url_of(one) == masked),
            "{listed:?}"
        );
    }
    Ok(())
}

fn url_of(endpoint: &Endpoint) -> &str {
    match &endpoint.target {
        Some(Target::Http(http)) => &http.url,
        None => "",
    }
}

async fn a_mask_that_is_sent_back_is_refused(scenario: &Scenario) -> Result<()> {
    let target = scenario.endpoint("/back", fields(scenario, "/back")).await?;
    let path = scenario.path(&format!("endpoints/{}", target.id));
    let reader = scenario.rest.with_token(Some(&key(scenario, &["SCOPE_ENDPOINTS_READ"]).await?));
    let (mut masked, before) = (reader.get(&path).await?, scenario.rest.get(&path).await?);
    masked["description"] = "changed".into();
    let refused = scenario.rest.send(Method::PATCH, &path, masked.to_string()).await?;
    ensure!(refused.status == 400 && refused.reason() == "INVALID_FIELD", "{refused:?}");
    ensure!(
        refused.fields() == ["endpoint.http.url", "endpoint.headers[\"x-key\"]"],
        "{refused:?}"
    );
    masked["http"]["url"] = scenario.receiver.url("/back?%E2%80%A6").into();
    let encoded = scenario
        .rest
        .send(Method::PATCH, &format!("{path}?update_mask=http"), masked.to_string())
        .await?;
    ensure!(encoded.fields() == ["endpoint.http.url"], "{encoded:?}");
    let request = UpdateEndpointRequest {
        project_id: scenario.project.clone(),
        endpoint_id: target.id.clone(),
        endpoint: Some(Endpoint {
            headers: [("x-key".to_owned(), "…".to_owned())].into(),
            ..Endpoint::default()
        }),
        update_mask: None,
    };
    let status = scenario
        .grpc()
        .await?
        .endpoints()
        .update_endpoint(request)
        .await
        .err()
        .context("the mask is refused")?;
    ensure!(status.code() == tonic::Code::InvalidArgument, "{status:?}");

    // With a mask of the other field alone, that field changes and the values stay.
    let changed = scenario.rest.patch(&format!("{path}?update_mask=description"), &masked).await?;
    ensure!(
        changed["description"] == "changed"
            && changed["http"] == before["http"]
            && changed["headers"] == before["headers"],
        "{changed}"
    );
    Ok(())
}
