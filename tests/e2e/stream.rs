//! StreamEvents: sending, acknowledgments, rejections and refusals.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::stream::iter;
use outrider_proto::ingest::{NewEvent, stream_events_response::Kind as Told};
use outrider_tests::{
    Shape,
    client::{Connection, Grpc, Producer, streamed},
    cluster, usage,
};
use prost_types::Timestamp;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::scenario::{self, BOUND, Scenario, run_with_shares, text};

scenarios! {
    everywhere: [
        a_stream_is_delivered,
        a_resend_counts_once,
    ],
    by_process: [
        refusals_are_rejections,
        what_is_out_of_place_ends_the_stream,
        keys_and_projects_are_checked,
    ],
}

/// Returns an event whose payload is a number.
pub fn numbered(number: usize) -> NewEvent {
    NewEvent {
        event_type: "item.made".to_owned(),
        payload: number.to_string().into(),
        ..NewEvent::default()
    }
}

async fn a_stream_is_delivered(scenario: &Scenario) -> Result<()> {
    scenario.target("/stream", &["item.made"], json!({})).await?;
    let mut producer = Producer::new(&scenario.url, &scenario.token, &scenario.project, "a-run")?;
    let mut told = Vec::new();
    producer
        .publish(&mut iter((1..=500).map(numbered)), |acknowledged| told.push(acknowledged))
        .await?;
    ensure!(
        (producer.accepted, producer.duplicates, producer.connections) == (500, 0, 1),
        "{producer:?}"
    );
    ensure!(
        told.is_sorted() && told.last() == Some(&500) && told.len() < 500,
        "acknowledgements are shared: {}",
        told.len()
    );
    scenario.arrived("/stream", 500, BOUND).await?;
    let mut numbers: Vec<usize> = Vec::new();
    for received in scenario.receiver.received("/stream") {
        numbers.push(std::str::from_utf8(&received.body)?.parse()?);
    }
    numbers.sort_unstable();
    ensure!(numbers == (1..=500).collect::<Vec<_>>(), "{numbers:?}");
    let events = scenario.rest.get(&scenario.path("events?page_size=1")).await?;
    let event = scenario
        .rest
        .get(&scenario.path(&format!("events/{}", text(&events["events"][0], "event_id")?)))
        .await?;
    ensure!(
        event["idempotency_key"] == "",
        "the place in the stream is no key of the producer's: {event}"
    );
    Ok(())
}

async fn refusals_are_rejections(scenario: &Scenario) -> Result<()> {
    let mut producer = Producer::new(&scenario.url, &scenario.token, &scenario.project, "s")?;
    let good = numbered(1);
    let keyed = |payload: &'static str| NewEvent {
        payload: payload.into(),
        idempotency_key: "k".to_owned(),
        ..good.clone()
    };
    let events = [
        good.clone(),
        NewEvent { event_type: "not good".to_owned(), ..good.clone() },
        NewEvent { payload: "{".into(), ..good.clone() },
        NewEvent {
            deliver_at: Some(Timestamp { seconds: 253_402_300_000, nanos: 0 }),
            ..good.clone()
        },
        NewEvent { payload: format!("\"{}\"", "x".repeat(1_048_576)).into(), ..good.clone() },
        keyed("1"),
        keyed("1"),
        keyed("2"),
        good.clone(),
    ];
    producer.publish(&mut iter(events), |_| ()).await?;
    ensure!((producer.accepted, producer.duplicates) == (4, 1), "{producer:?}");
    let rejected: Vec<(u64, Code)> = producer
        .rejections
        .iter()
        .map(|rejection| {
            (
                rejection.sequence,
                Code::from_i32(rejection.error.as_ref().map_or(0, |error| error.code)),
            )
        })
        .collect();
    let invalid = Code::InvalidArgument;
    ensure!(
        rejected
            == [(2, invalid), (3, invalid), (4, invalid), (5, invalid), (8, Code::AlreadyExists)],
        "{rejected:?}"
    );
    let message = &producer.rejections[0].error.as_ref().context("no error")?.message;
    ensure!(message.starts_with("event.event_type: "), "{message}");
    Ok(())
}

async fn a_resend_counts_once(scenario: &Scenario) -> Result<()> {
    for round in 0..2 {
        let mut producer =
            Producer::new(&scenario.url, &scenario.token, &scenario.project, "again")?;
        producer.publish(&mut iter((1..=50).map(numbered)), |_| ()).await?;
        ensure!(
            (producer.accepted, producer.duplicates) == (50, 50 * round),
            "round {round}: {producer:?}"
        );
    }
    let mut changed = Producer::new(&scenario.url, &scenario.token, &scenario.project, "again")?;
    changed.publish(&mut iter((2..=3).map(numbered)), |_| ()).await?;
    ensure!(changed.rejections.len() == 2, "other events under the same numbers: {changed:?}");
    let mut other = Producer::new(&scenario.url, &scenario.token, &scenario.project, "another")?;
    other.publish(&mut iter((1..=50).map(numbered)), |_| ()).await?;
    ensure!(other.duplicates == 0, "{other:?}");
    let events = scenario.rest.get(&scenario.path("events?page_size=500")).await?;
    ensure!(events["events"].as_array().map(Vec::len) == Some(100), "{events}");
    Ok(())
}

/// Sends numbers on a new stream, and returns how it ends.
async fn ends(scenario: &Scenario, sequences: &[u64]) -> Result<(u64, Status)> {
    let mut connection =
        Connection::open(&scenario.grpc().await?, &scenario.project, "out-of-place").await?;
    for sequence in sequences {
        connection.out.send(streamed(*sequence, numbered(1))).await?;
    }
    let mut acknowledged = 0;
    loop {
        match connection.next().await {
            Ok(Some(Told::Ack(ack))) => acknowledged = ack.sequence,
            Ok(Some(other)) => anyhow::bail!("{other:?}"),
            Ok(None) => anyhow::bail!("a good end"),
            Err(status) => return Ok((acknowledged, status)),
        }
    }
}

async fn what_is_out_of_place_ends_the_stream(scenario: &Scenario) -> Result<()> {
    for (sequences, acknowledged, why) in [
        (&[5, 6, 8][..], 6, "is 8; the next is 7"),
        (&[5, 6, 6], 6, "is 6; the next is 7"),
        (&[0], 0, "is 0; the next is 1"),
    ] {
        let (upto, status) = ends(scenario, sequences).await?;
        ensure!(upto == acknowledged && status.code() == Code::InvalidArgument, "{upto}: {status}");
        ensure!(status.message() == format!("event.sequence: {why}"), "{status}");
    }
    Ok(())
}

async fn keys_and_projects_are_checked(scenario: &Scenario) -> Result<()> {
    let code = async |token: &str, project: &str| {
        let grpc = Grpc::connect(&scenario.url, token).await?;
        anyhow::Ok(
            Connection::open(&grpc, project, "s").await.map(|_| ()).map_err(|status| status.code()),
        )
    };
    let reader =
        json!({"name": "reader", "project_id": scenario.project, "scopes": ["SCOPE_EVENTS_READ"]});
    let reader = text(&scenario.rest.post("/v1/api_keys", &reader).await?, "token")?;
    ensure!(code(&reader, &scenario.project).await? == Err(Code::PermissionDenied));
    ensure!(code("ork_nonsense", &scenario.project).await? == Err(Code::Unauthenticated));
    let other =
        text(&scenario.rest.post("/v1/projects", &json!({"name": "Other"})).await?, "project_id")?;
    let bound = json!({"name": "bound", "project_id": other, "scopes": ["SCOPE_EVENTS_PUBLISH"]});
    let bound = text(&scenario.rest.post("/v1/api_keys", &bound).await?, "token")?;
    ensure!(code(&bound, &scenario.project).await? == Err(Code::NotFound));
    ensure!(code(&bound, &other).await? == Ok(()));
    Ok(())
}

/// A client that never reads is held, and costs bounded memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_is_held() {
    run_with_shares(1, async || {
        let outrider = tokio::task::block_in_place(|| {
            scenario::start(Shape::Sqlite, &cluster::Options::default(), None)
        })?;
        let scenario = Scenario::new(&outrider).await?;
        let connection =
            Connection::open(&scenario.grpc().await?, &scenario.project, "deaf").await?;
        let before = usage::of(&outrider.process_ids()).memory;
        let bad = NewEvent {
            event_type: "not good".to_owned(),
            payload: vec![b'x'; 1_000].into(),
            ..NewEvent::default()
        };
        let mut sent = 0_u64;
        // Each answer is larger than an acknowledgment, so the channel to the client is soon full.
        while let Ok(taken) = tokio::time::timeout(
            Duration::from_secs(2),
            connection.out.send(streamed(sent + 1, bad.clone())),
        )
        .await
        {
            taken?;
            sent += 1;
            ensure!(sent < 200_000, "200 MB were taken without an answer being read");
        }
        let grown = usage::of(&outrider.process_ids()).memory.saturating_sub(before);
        ensure!(grown < 64 * 1_048_576, "{grown} bytes more after {sent} events");
        eprintln!("held after {sent} events, {} KiB more", grown / 1_024);
        let alive: Value = scenario.publish(json!({"event_type": "a", "data": 1})).await?;
        text(&alive, "event_id").map(drop)
    })
    .await;
}
