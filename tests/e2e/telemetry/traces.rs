//! One event has one trace, from the client's span through every hop to the endpoint, including
//! retries.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use outrider_proto::ingest::{NewEvent, PublishEventRequest};
use outrider_tests::{Answer, Collector, Shape, collector::Arrived, wait_until};
use serde_json::json;
use tokio::net::TcpListener;

use super::{scrapes, start, sum};
use crate::scenario::{BOUND, Scenario, run_with_shares, text, with_logs};

const CLIENT_SPAN: &str = "00f067aa0ba902b7";
const INGEST: &str = "outrider.ingest.v1.IngestService/PublishEvent";

fn of_trace(collector: &Collector, trace: &str) -> Vec<Arrived> {
    collector.spans().into_iter().filter(|span| span.trace() == trace).collect()
}

fn named(spans: &[Arrived], name: &str) -> Vec<Arrived> {
    spans.iter().filter(|span| span.span.name == name).cloned().collect()
}

/// Returns the trace when every hop of an event with two attempts has arrived. Connections are
/// reused, so not every attempt dials.
async fn whole(
    collector: &Collector,
    trace: &str,
    gateway: &str,
    dials: usize,
) -> Result<Vec<Arrived>> {
    let mut last = Vec::new();
    let spans = wait_until("the trace is whole", BOUND, async || {
        let spans = of_trace(collector, trace);
        last = spans
            .iter()
            .map(|span| format!("{} {} <- {}", span.span.name, span.id(), span.parent()))
            .collect();
        let there = |name: &str, count: usize| named(&spans, name).len() >= count;
        let all = there(gateway, 1)
            && there(INGEST, 1)
            && there("dispatch accept", 1)
            && there("attempt", 2)
            && there("egress CONNECT", dials)
            && there("dispatch settle", 2);
        all.then_some(spans)
    });
    spans.await.with_context(|| format!("of trace {trace}: {last:#?}"))
}

/// Asserts that every hop is below the one before it.
fn one_tree(spans: &[Arrived], gateway: &str, client: &str) -> Result<()> {
    let only = |name: &str| -> Result<Arrived> {
        let found = named(spans, name);
        ensure!(found.len() == 1, "{name} is there {} times", found.len());
        Ok(found[0].clone())
    };
    let (gateway, ingest, accept) = (only(gateway)?, only(INGEST)?, only("dispatch accept")?);
    ensure!(gateway.parent() == client, "the gateway's parent is {}", gateway.parent());
    ensure!(
        ingest.parent() == gateway.id() && accept.parent() == ingest.id(),
        "{ingest:?} {accept:?}"
    );
    let attempts = named(spans, "attempt");
    ensure!(
        attempts.len() == 2 && attempts.iter().all(|attempt| attempt.parent() == accept.id()),
        "{attempts:?}"
    );
    let ids: BTreeSet<String> = attempts.iter().map(Arrived::id).collect();
    let parents =
        |name: &str| named(spans, name).iter().map(Arrived::parent).collect::<BTreeSet<_>>();
    ensure!(parents("egress CONNECT").is_subset(&ids), "the egress is under no attempt");
    ensure!(parents("dispatch settle") == ids, "each attempt is settled");
    ensure!(
        spans.len() == 7 + named(spans, "egress CONNECT").len(),
        "more spans than hops: {spans:#?}"
    );
    Ok(())
}

/// Asserts that the endpoint got the trace and the span of its attempt.
fn told(
    scenario: &Scenario,
    event: &str,
    spans: &[Arrived],
    trace: &str,
    state: &str,
) -> Result<()> {
    let received = scenario.receiver.received_of("/traced", event);
    ensure!(received.len() == 2, "{received:?}");
    for received in received {
        let number = received.header("outrider-attempt");
        let attempt = named(spans, "attempt")
            .into_iter()
            .find(|span| span.attribute("outrider.attempt") == number);
        let attempt = attempt.context("the attempt has no span")?;
        let expected = format!("00-{trace}-{}-01", attempt.id());
        ensure!(
            received.header("traceparent") == expected,
            "{} is not {expected}",
            received.header("traceparent")
        );
        ensure!(received.header("tracestate") == state, "{received:?}");
        ensure!(attempt.attribute("outrider.event.id") == event, "{attempt:?}");
        let status = if number == "1" { "500" } else { "200" };
        ensure!(attempt.attribute("http.response.status_code") == status, "{attempt:?}");
    }
    Ok(())
}

async fn an_event_is_one_tree(shape: Shape) -> Result<()> {
    let collector = Collector::start().await?;
    let more = json!({"telemetry": {
        "otlp_endpoint": collector.url(), "export_period": "100ms",
            "resource_attributes": ["deployment.environment.name=tests"],
    }});
    let outrider = start(shape, more)?;
    let scenario = Scenario::new(&outrider).await?;
    // With another name than the scenario's own endpoints, so no connection to it is open.
    let url =
        scenario.receiver.url("/traced?key=marker-of-query").replace("127.0.0.1", "localhost");
    let secret = json!({"http": {"url": url}, "headers": {"x-key": "marker-of-header"}});
    scenario.target("/traced", &["*"], secret).await?;
    scenario.receiver.answer("/traced", vec![Answer::Status(500), Answer::Status(200)]);
    let outcome = async {
        let by_rest = "4bf92f3577b34da6a3ce929d0e0e4736";
        let rest =
            scenario.rest.with_header("traceparent", &format!("00-{by_rest}-{CLIENT_SPAN}-01"))?;
        let rest = rest.with_header("tracestate", "vendor=x")?;
        let event = text(
            &rest.post(&scenario.path("events"), &json!({"event_type": "a", "data": {}})).await?,
            "event_id",
        )?;
        let route = "/v1/projects/{project_id}/events";
        let spans = whole(&collector, by_rest, route, 1).await?;
        one_tree(&spans, route, CLIENT_SPAN)?;
        told(&scenario, &event, &spans, by_rest, "vendor=x")?;
        ensure!(
            spans.iter().all(|span| span.of_process("deployment.environment.name") == "tests"),
            "{spans:?}"
        );
        let processes: BTreeSet<String> =
            spans.iter().map(|span| span.of_process("process.pid")).collect();
        ensure!(
            processes.len() == if shape == Shape::Mesh { 5 } else { 1 },
            "spans are of {processes:?}"
        );

        let by_grpc = "5bf92f3577b34da6a3ce929d0e0e4736";
        let event =
            NewEvent { event_type: "a".into(), payload: "{}".into(), ..NewEvent::default() };
        let mut request = tonic::Request::new(PublishEventRequest {
            project_id: scenario.project.clone(),
            event: Some(event),
        });
        request
            .metadata_mut()
            .insert("traceparent", format!("00-{by_grpc}-{CLIENT_SPAN}-01").parse()?);
        let event =
            scenario.grpc().await?.ingest().publish_event(request).await?.into_inner().event_id;
        let route = format!("/{INGEST}");
        let spans = whole(&collector, by_grpc, &route, 0).await?;
        one_tree(&spans, &route, CLIENT_SPAN)?;
        told(&scenario, &event, &spans, by_grpc, "")?;

        // Without a client's trace, one begins at the gateway.
        let event = scenario.publish_id("a", json!({})).await?;
        let begun = wait_until("the event's trace is known", BOUND, async || {
            let of_event = |span: &Arrived| {
                span.span.name == "dispatch accept" && span.attribute("outrider.event.id") == event
            };
            collector.spans().iter().find(|span| of_event(span)).map(Arrived::trace)
        });
        let begun = begun.await?;
        let route = "/v1/projects/{project_id}/events";
        let spans = whole(&collector, &begun, route, 0).await?;
        one_tree(&spans, route, "")?;
        let shown = format!("{:?}", collector.spans());
        ensure!(
            !shown.contains("marker-of"),
            "a span shows what the endpoint's URL or headers hold"
        );
        told(&scenario, &event, &spans, &begun, "")
    };
    outcome.await.map_err(|error| with_logs(&error, &outrider))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_one_tree_on_sqlite() {
    run_with_shares(1, async || an_event_is_one_tree(Shape::Sqlite).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_one_tree_in_one_process() {
    run_with_shares(1, async || an_event_is_one_tree(Shape::Postgres).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_one_tree_over_six_processes() {
    run_with_shares(2, async || an_event_is_one_tree(Shape::Mesh).await).await;
}

/// Publishes with these headers, and returns the trace headers that the endpoint got.
async fn told_by(scenario: &Scenario, traceparent: Option<&str>) -> Result<(String, String)> {
    let mut rest = scenario.rest.clone();
    if let Some(traceparent) = traceparent {
        rest = rest.with_header("traceparent", traceparent)?.with_header("tracestate", "a=b")?;
    }
    let event = text(
        &rest.post(&scenario.path("events"), &json!({"event_type": "a", "data": {}})).await?,
        "event_id",
    )?;
    scenario.delivery_in(&event, "DELIVERED").await?;
    let received = &scenario.receiver.received_of("/x", &event)[0];
    Ok((received.header("traceparent").to_owned(), received.header("tracestate").to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_sampled_is_not_exported_but_handed_on() {
    run_with_shares(1, async || {
        let collector = Collector::start().await?;
        let telemetry = json!({"otlp_endpoint": collector.url(), "export_period": "100ms",
            "sample_ratio": 0.0});
        let outrider = start(Shape::Sqlite, json!({"telemetry": telemetry}))?;
        let scenario = Scenario::new(&outrider).await?;
        scenario.target("/x", &["*"], json!({})).await?;
        let nothing = (String::new(), String::new());
        ensure!(told_by(&scenario, None).await? == nothing, "a trace that nobody wants was begun");
        let unsampled = format!("00-{}-{CLIENT_SPAN}-00", "6".repeat(32));
        ensure!(
            told_by(&scenario, Some(&unsampled)).await? == (unsampled, "a=b".into()),
            "it was not handed on"
        );
        ensure!(told_by(&scenario, Some("nonsense")).await? == nothing, "nonsense was handed on");
        // The client's sampling decision is followed. When its spans are here, those of the others
        // would also be.
        let trace = "7".repeat(32);
        let (told, _) = told_by(&scenario, Some(&format!("00-{trace}-{CLIENT_SPAN}-01"))).await?;
        ensure!(told.starts_with(&format!("00-{trace}-")), "{told}");
        wait_until("its spans arrive", BOUND, async || {
            (of_trace(&collector, &trace).len() >= 5).then_some(())
        })
        .await?;
        let others: Vec<String> =
            collector.spans().iter().map(Arrived::trace).filter(|of| *of != trace).collect();
        ensure!(others.is_empty(), "spans of {others:?} were exported");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_collector_traces_are_handed_on_unless_that_is_off() {
    run_with_shares(1, async || {
        let given = format!("00-{}-{CLIENT_SPAN}-01", "8".repeat(32));
        for (propagate, expected) in
            [(true, (given.clone(), "a=b".to_owned())), (false, (String::new(), String::new()))]
        {
            let outrider = start(Shape::Sqlite, json!({"telemetry": {"propagate": propagate}}))?;
            let scenario = Scenario::new(&outrider).await?;
            scenario.target("/x", &["*"], json!({})).await?;
            ensure!(told_by(&scenario, Some(&given)).await? == expected, "propagate = {propagate}");
            ensure!(
                told_by(&scenario, None).await?.0.is_empty(),
                "a trace was begun that nobody records"
            );
        }
        Ok(())
    })
    .await;
}

/// A collector that is unreachable, or accepts connections and never answers.
async fn a_bad_collector(hangs: bool) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let _held = hangs.then_some(listener);
    let telemetry =
        json!({"otlp_endpoint": url, "export_queue": 16, "export_batch": 8, "otlp_timeout": "1s"});
    let mut outrider = start(Shape::Sqlite, json!({"telemetry": telemetry}))?;
    let scenario = Scenario::new(&outrider).await?;
    scenario.target("/x", &["*"], json!({})).await?;
    let events: Vec<_> = (0..50).map(|number| json!({"event_type": "a", "data": number})).collect();
    for _ in 0..10 {
        let reply =
            scenario.rest.post(&scenario.path("events:batch"), &json!({"events": events})).await?;
        ensure!(
            reply["results"].as_array().is_some_and(|results| results.len() == events.len()),
            "{reply}"
        );
    }
    scenario.arrived("/x", 500, BOUND).await?;
    let texts = scrapes(&outrider).await?;
    ensure!(
        sum(&texts, "outrider_telemetry_spans_total{result=\"dropped\"}") > 400.0,
        "what is lost is not counted"
    );
    let ended = tokio::task::block_in_place(|| outrider.terminate("all", Duration::from_secs(30)))?;
    ensure!(ended.success(), "it ended with {ended}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_hangs_slows_nothing() {
    run_with_shares(1, async || a_bad_collector(true).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_gone_slows_nothing() {
    run_with_shares(1, async || a_bad_collector(false).await).await;
}
