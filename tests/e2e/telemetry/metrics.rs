//! Every metric in docs/metrics.md is shown, moves with what it counts, and is well-formed for
//! Prometheus.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use http::Method;
use outrider_proto::ingest::{NewEvent, PublishEventRequest};
use outrider_tests::{Act, Answer, Collector, Outrider, RawReceiver, Shape, wait_until};
use serde_json::json;

use super::{scrapes, start, sum};
use crate::scenario::{BOUND, Scenario, run_with_shares, text};

/// Metrics that stay 0 when all goes well, or that return to 0 before they are read.
const CALM: [&str; 35] = [
    "outrider_configuration_invalid",
    "outrider_gateway_requests_open",
    "outrider_worker_jobs_held_total",
    "outrider_gateway_streams_open",
    "outrider_gateway_connections_refused_total",
    "outrider_gateway_connections_displaced_total",
    "outrider_gateway_buffered_bytes",
    "outrider_gateway_unsent_bytes",
    "outrider_shares_held",
    "outrider_shares_refused_total",
    "outrider_shares_waited_total",
    "outrider_dispatch_requeued_total",
    "outrider_dispatch_congested_endpoints",
    "outrider_dispatch_partitions_dropped_total",
    "outrider_dispatch_rows_deleted_total",
    "outrider_dispatch_history_held",
    "outrider_queue_command_errors_total",
    "outrider_queue_refused",
    "outrider_queue_jobs",
    "outrider_worker_jobs",
    "outrider_worker_requests_open",
    "outrider_worker_slots_used",
    "outrider_worker_payload_bytes",
    "outrider_worker_unreported_bytes",
    "outrider_worker_answers_dropped_total",
    "outrider_worker_requests_resent_total",
    "outrider_worker_idle_connections",
    "outrider_worker_jobs_waiting",
    "outrider_worker_narrow_windows",
    "outrider_dispatch_narrow_windows",
    "outrider_store_errors_total",
    "outrider_store_probe_refused",
    "outrider_egress_tunnels",
    "outrider_dispatch_unaccounted_deliveries",
    "outrider_dispatch_ledger_discrepancies",
];

/// Returns the names and types in docs/metrics.md.
fn documented() -> Vec<(String, String)> {
    let page = include_str!("../../../docs/metrics.md");
    let entries = page.split("\n### `").skip(1);
    entries
        .filter_map(|entry| {
            let (name, rest) = entry.split_once('`')?;
            let (_, kind) = rest.split_once("\n- Type: ")?;
            Some((name.to_owned(), kind.split('.').next()?.to_owned()))
        })
        .collect()
}

/// Causes everything that the metrics count.
async fn drive(outrider: &Outrider, scenario: &Scenario) -> Result<()> {
    scenario.target("/well", &["a.*"], json!({})).await?;
    let failing = scenario.target("/ill", &["b.*"], json!({})).await?;
    scenario.receiver.answer("/ill", vec![Answer::Status(500)]);
    // Its own listener is what the egress never dials; the name is nobody's.
    let endless = RawReceiver::start(&[Act::Repeat("HTTP/1.1 100 Continue\r\n\r\n")]).await?;
    let own = if outrider.shape() == Shape::Mesh {
        outrider.role_address("egress")
    } else {
        outrider.address()
    };
    for (url, event_type) in [
        (format!("http://{own}/"), "c.own"),
        ("http://nobody.outrider-tests.example.com/".to_owned(), "c.name"),
        (endless.url(), "c.endless"),
    ] {
        let made =
            scenario.rest.post(&scenario.path("endpoints"), &json!({"http": {"url": url}})).await?;
        let id = text(&made["endpoint"], "endpoint_id")?;
        let subscription = json!({"endpoint_id": id, "name": "s", "event_types": [event_type]});
        scenario.rest.post(&scenario.path("subscriptions"), &subscription).await?;
    }
    scenario.settle().await?;
    let mut ends = Vec::new();
    for (event_type, status) in [
        ("a.b", "DELIVERED"),
        ("a.c", "DELIVERED"),
        ("b.x", "FAILED"),
        ("c.own", "FAILED"),
        ("c.name", "FAILED"),
        ("c.endless", "FAILED"),
    ] {
        ends.push((scenario.publish_id(event_type, json!({})).await?, status));
    }
    for (event, status) in &ends {
        scenario.delivery_in(event, status).await?;
    }
    scenario
        .rest
        .post(&scenario.path(&format!("events/{}:erasePayload", ends[0].0)), &json!({}))
        .await?;
    let key = json!({"event_type": "a.b", "data": {}, "idempotency_key": "once"});
    scenario.publish(key.clone()).await?;
    scenario.publish(key).await?;
    let event =
        NewEvent { event_type: "a.grpc".into(), payload: "{}".into(), ..NewEvent::default() };
    let request = PublishEventRequest { project_id: scenario.project.clone(), event: Some(event) };
    scenario.grpc().await?.ingest().publish_event(request).await?;
    let refused = scenario
        .rest
        .send(
            Method::POST,
            &scenario.path("events"),
            "{\"event_type\": \"not a type\", \"data\": 1}",
        )
        .await?;
    ensure!(refused.status == 400, "{refused:?}");
    let stranger =
        scenario.rest.with_token(None).send(Method::POST, &scenario.path("events"), "{}").await?;
    ensure!(stranger.status == 401, "{stranger:?}");
    // Deliveries to a paused endpoint are pending, and raise no alarm.
    let pause = json!({"state": "ENDPOINT_STATE_PAUSED"});
    scenario.rest.patch(&scenario.path(&format!("endpoints/{}", failing.id)), &pause).await?;
    scenario.settle().await?;
    scenario.publish_id("b.x", json!({})).await?;
    Ok(())
}

async fn every_metric_is_shown_and_moves(shape: Shape) -> Result<()> {
    let collector = Collector::start().await?;
    let more = json!({
        "dispatch": {"measure_period": "200ms", "sweep_period": "200ms", "audit_period": "200ms",
            "audit_grace": "1s"},
        "egress": {"dns_timeout": "1s"},
        "telemetry": {"otlp_endpoint": collector.url(), "export_period": "100ms"},
    });
    let outrider = start(shape, more)?;
    let scenario = Scenario::new(&outrider).await?;
    let outcome = async {
        drive(&outrider, &scenario).await?;
        let documented = documented();
        ensure!(documented.len() > 40, "docs/metrics.md is not read: {documented:?}");
        let mut missing = Vec::new();
        let moved = wait_until("every metric moved", BOUND, async || {
            let texts = scrapes(&outrider).await.ok()?;
            missing = documented
                .iter()
                .filter(|(name, kind)| !seen(&texts, name, kind, shape))
                .map(|(name, _)| name.clone())
                .collect();
            missing.is_empty().then_some(texts)
        });
        let texts = moved.await.with_context(|| format!("not seen: {missing:?}"))?;
        expected_counts(&texts)?;
        for scrape in &texts {
            lint(scrape)?;
        }
        Ok(())
    };
    outcome.await.map_err(|error| crate::scenario::with_logs(&error, &outrider))
}

fn seen(texts: &[String], name: &str, kind: &str, shape: Shape) -> bool {
    // Only Redis has rights that can be refused.
    if shape == Shape::Sqlite
        && (name.starts_with("outrider_queue_command") || name == "outrider_queue_refused")
    {
        return true;
    }
    // Only a gateway in a separate process asks others about keys.
    if shape != Shape::Mesh && name.starts_with("outrider_gateway_key") {
        return true;
    }
    let sample = if kind == "histogram" { format!("{name}_count") } else { name.to_owned() };
    let is_there = texts.iter().flat_map(|text| text.lines()).any(|line| {
        line.strip_prefix(sample.as_str()).is_some_and(|rest| rest.starts_with([' ', '{']))
    });
    // Tunnels exist only between processes. Due deliveries may be delivered before they are
    // measured.
    let calm = CALM.contains(&name)
        || name == "outrider_dispatch_oldest_due_age_seconds"
        || (shape != Shape::Mesh && name == "outrider_egress_tunnel_bytes_total");
    is_there && (calm || sum(texts, &sample) > 0.0)
}

fn expected_counts(texts: &[String]) -> Result<()> {
    for (sample, least) in [
        ("outrider_worker_attempts_total{outcome=\"succeeded\"}", 4.0),
        ("outrider_dispatch_attempts_total{outcome=\"rejected\"}", 3.0),
        ("outrider_dispatch_attempts_total{outcome=\"address-refused\"}", 3.0),
        ("outrider_dispatch_deliveries_ended_total{status=\"failed\"}", 3.0),
        ("outrider_ingest_events_accepted_total{result=\"duplicate\"}", 1.0),
        ("outrider_gateway_refused_unread_total{reason=\"MISSING_CREDENTIALS\"}", 1.0),
        ("outrider_ingest_events_refused_total{reason=\"INVALID_FIELD\"}", 1.0),
        ("outrider_worker_exchanges_exceeded_total{bound=\"interim-answers\"}", 3.0),
        ("outrider_egress_refusals_total{rule=\"own-listener\"}", 3.0),
        ("outrider_dispatch_pending_deliveries", 1.0),
    ] {
        ensure!(sum(texts, sample) >= least, "{sample} is {}", sum(texts, sample));
    }
    let route = "method=\"POST\",protocol=\"rest\",route=\"/v1/projects/{project_id}/events\"";
    ensure!(
        sum(texts, &format!("outrider_gateway_requests_total{{{route},status=\"400\"}}")) >= 1.0,
        "no refused publish"
    );
    let oldest = sum(texts, "outrider_dispatch_oldest_due_age_seconds");
    ensure!(oldest < 20.0, "the paused endpoint makes an alarm: {oldest}");
    for text in texts {
        ensure!(
            !text.contains("prj_") && !text.contains("ep_") && !text.contains("evt_"),
            "an id is a label"
        );
    }
    Ok(())
}

/// Checks the output with promtool. If that is missing, says so, or fails in a strict run.
fn lint(scrape: &str) -> Result<()> {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match promtool {
        Ok(promtool) => promtool,
        Err(error) if std::env::var_os("OUTRIDER_TEST_STRICT").is_none() => {
            eprintln!("SKIPPED: promtool: {error}");
            return Ok(());
        }
        Err(error) => return Err(error).context("promtool"),
    };
    promtool.stdin.take().context("no stdin")?.write_all(scrape.as_bytes())?;
    let output = promtool.wait_with_output()?;
    ensure!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_is_shown_and_moves_on_sqlite() {
    run_with_shares(1, async || every_metric_is_shown_and_moves(Shape::Sqlite).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_is_shown_and_moves_in_one_process() {
    run_with_shares(1, async || every_metric_is_shown_and_moves(Shape::Postgres).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_is_shown_and_moves_over_six_processes() {
    run_with_shares(2, async || every_metric_is_shown_and_moves(Shape::Mesh).await).await;
}

/// Work that is not done must be visible: without a worker, the age of due deliveries grows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_due_age_grows_when_nobody_sends() {
    run_with_shares(2, async || {
        let mut outrider = start(Shape::Mesh, json!({"dispatch": {"measure_period": "200ms"}}))?;
        let scenario = Scenario::new(&outrider).await?;
        scenario.target("/x", &["*"], json!({})).await?;
        tokio::task::block_in_place(|| outrider.kill("worker"))?;
        scenario.publish_id("a", json!({})).await?;
        let dispatch = outrider.operations()[1].clone();
        wait_until("the age grows", BOUND, async || {
            let rest = outrider_tests::client::Rest::new(&format!("http://{dispatch}"), None);
            let text =
                String::from_utf8(rest.send(Method::GET, "/metrics", "").await.ok()?.body.to_vec())
                    .ok()?;
            (sum(&[text], "outrider_dispatch_oldest_due_age_seconds ") > 2.0).then_some(())
        })
        .await
    })
    .await;
}
