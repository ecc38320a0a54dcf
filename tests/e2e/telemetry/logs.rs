//! Logs have ids to find things by, and no secrets.

use anyhow::{Context, Result, ensure};
use outrider_tests::{Answer, Shape, wait_until};
use serde_json::{Value, json};

use super::{scrapes, start};
use crate::scenario::{BOUND, Scenario, run_with_shares, text};

const TRACE: &str = "9bf92f3577b34da6a3ce929d0e0e4736";

fn lines(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// At Outrider's most verbose level, as JSON, with six processes.
async fn logs_hold_ids_and_no_secrets() -> Result<()> {
    let outrider = start(Shape::Mesh, json!({"log": {"format": "json", "level": "debug"}}))?;
    let scenario = Scenario::new(&outrider).await?;
    let url = scenario.receiver.url("/logged?key=marker-of-endpoint-query");
    let endpoint = json!({"headers": {"x-key": "marker-of-endpoint-header"}, "http": {"url": url}});
    let target = scenario.target("/logged", &["*"], endpoint).await?;
    let answers =
        vec![Answer::Full(500, Vec::new(), "marker-of-answer".into()), Answer::Status(200)];
    scenario.receiver.answer("/logged", answers);
    let rest =
        scenario.rest.with_header("traceparent", &format!("00-{TRACE}-00f067aa0ba902b7-01"))?;
    let rest = rest.with_header("x-request-id", "request-of-the-log-test")?;
    let event = json!({
        "event_type": "a", "data": {"text": "marker-of-payload"},
            "headers": {"x-h": "marker-of-event-header"},
        "metadata": {"note": "marker-of-metadata"},
    });
    let event = text(&rest.post(&scenario.path("events"), &event).await?, "event_id")?;
    let delivery = text(&scenario.delivery_in(&event, "DELIVERED").await?, "delivery_id")?;

    let has = |line: &Value, fields: &[(&str, &str)]| {
        fields.iter().all(|(name, value)| line[*name] == *value)
    };
    let by_request = [
        ("request_id", "request-of-the-log-test"),
        ("trace_id", TRACE),
        ("route", "/v1/projects/{project_id}/events"),
    ];
    let by_delivery =
        [("event_id", event.as_str()), ("delivery_id", delivery.as_str()), ("trace_id", TRACE)];
    let all = wait_until("the lines are written", BOUND, async || {
        let all = outrider.logs(usize::MAX);
        let lines = lines(&all);
        let there = |fields: &[(&str, &str)]| lines.iter().any(|line| has(line, fields));
        (there(&by_request) && there(&by_delivery)).then_some(all)
    });
    let all = all.await?;
    let key = scenario.token.splitn(3, '_').nth(2).context("the key has parts")?;
    let secret = target.secret.trim_start_matches("whsec_");
    for (what, hidden) in [
        ("the payload", "marker-of-payload"),
        ("a header of the event", "marker-of-event-header"),
        ("metadata", "marker-of-metadata"),
        ("a header of the endpoint", "marker-of-endpoint-header"),
        ("the query of the endpoint's URL", "marker-of-endpoint-query"),
        ("the endpoint's answer", "marker-of-answer"),
        ("the API key", key),
        ("the signing secret", secret),
        ("the internal token", "known-to-the-roles-of-this-test-only"),
        ("the master key", "dGVzdHMgdGVzdHMgdGVzdHMg"),
    ] {
        let line = all.lines().find(|line| line.contains(hidden));
        ensure!(line.is_none(), "{what} is in the log: {line:?}");
    }
    let metrics = scrapes(&outrider).await?.concat();
    ensure!(!metrics.contains("marker-of"), "something of a tenant is in the metrics");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_hold_ids_and_no_secrets_over_six_processes() {
    run_with_shares(2, async || logs_hold_ids_and_no_secrets().await).await;
}

/// A failed gRPC call is a failure in the log, although its HTTP status is 200. A client's mistake
/// is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_request_line_of_grpc_has_the_status_of_the_role() {
    run_with_shares(1, async || {
        let outrider = start(
            Shape::Sqlite,
            json!({"log": {"format": "json", "level": "info,outrider_gateway=debug"}}),
        )?;
        let scenario = Scenario::new(&outrider).await?;
        let request = outrider_proto::dispatch::GetEventRequest {
            project_id: scenario.project.clone(),
            event_id: "nonsense".into(),
        };
        ensure!(
            scenario.grpc().await?.events().get_event(request).await.is_err(),
            "nonsense is no id"
        );
        let health = json!({"route": "/outrider.dispatch.v1.EventService/GetEvent",
            "protocol": "grpc", "grpc_status": "INVALID_ARGUMENT"});
        wait_until("the line is written", BOUND, async || {
            let lines = lines(&outrider.logs(usize::MAX));
            let expected = health.as_object()?;
            lines
                .iter()
                .any(|line| expected.iter().all(|(name, value)| &line[name] == value))
                .then_some(())
        })
        .await
    })
    .await;
}
