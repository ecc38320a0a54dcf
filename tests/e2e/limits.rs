//! Limits above the defaults of libraries. Roles in separate processes accept the same as one
//! process. Larger messages are refused with the limit and the name of its setting.

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::Method;
use outrider_proto::{
    dispatch::GetEventRequest,
    ingest::{NewEvent, PublishEventRequest},
};
use outrider_tests::{Outrider, Shape, client::Reply, cluster::Options};
use serde_json::json;
use tokio::task::block_in_place;
use tonic::Code;

use crate::scenario::{Scenario, run_with_shares, start, text, with_logs};

const MIB: usize = 1024 * 1024;
/// More than 16 MiB, which was once the bound of messages between roles.
const LARGE: usize = 20 * MIB;
const MOST_PAYLOAD: usize = 24 * MIB;
const MOST_REQUEST: usize = 64 * MIB;

async fn raised(shape: Shape) -> Result<()> {
    let more = json!({
        "gateway": {
            "max_request_bytes": MOST_REQUEST, "max_buffered_bytes": 1024 * MIB,
                "max_decoded_bytes": 160 * MIB,
            "request_timeout": "55s",
        },
        "ingest": {"max_payload_bytes": MOST_PAYLOAD, "max_batch_bytes": 2 * MOST_PAYLOAD},
    });
    let outrider = block_in_place(|| start(shape, &Options { more, ..Options::default() }, None))?;
    arrives(&outrider).await.map_err(|error| with_logs(&error, &outrider))
}

async fn arrives(outrider: &Outrider) -> Result<()> {
    let scenario = Scenario::new(outrider).await?;
    scenario.target("/large", &["large"], json!({"timeout": "30s"})).await?;
    let payload: Bytes = (0..LARGE).map(|at| (at / 7) as u8).collect::<Vec<_>>().into();

    let published = publish(&scenario, &payload).await?.success()?;
    let by_rest = text(&published, "event_id")?;
    let grpc = scenario.grpc().await?;
    let event = |payload: Bytes| {
        let content_type = "application/octet-stream".to_owned();
        let event = NewEvent {
            event_type: "large".to_owned(),
            payload,
            content_type,
            ..NewEvent::default()
        };
        PublishEventRequest { project_id: scenario.project.clone(), event: Some(event) }
    };
    let by_grpc = grpc.ingest().publish_event(event(payload.clone())).await?.into_inner().event_id;

    for id in [&by_rest, &by_grpc] {
        scenario.delivery_in(id, "DELIVERED").await?;
        let received = scenario.receiver.received_of("/large", id);
        ensure!(
            received.len() == 1 && received[0].body == payload,
            "{id}: it did not arrive as it was"
        );
        let shown = scenario.rest.get(&scenario.path(&format!("events/{id}"))).await?;
        let data = STANDARD.decode(text(&shown, "data_base64")?)?;
        ensure!(data == payload, "{id}: it is not shown as it was");
        let request =
            GetEventRequest { project_id: scenario.project.clone(), event_id: id.clone() };
        let read = grpc
            .events()
            .max_decoding_message_size(MOST_REQUEST)
            .get_event(request)
            .await?
            .into_inner();
        ensure!(
            read.event.context("no event")?.payload == payload,
            "{id}: it is not read as it was"
        );
    }

    let over = Bytes::from(vec![b'x'; MOST_PAYLOAD + 1]);
    let refused = publish(&scenario, &over).await?;
    is_too_large(
        &refused,
        &[&(MOST_PAYLOAD + 1).to_string(), &MOST_PAYLOAD.to_string(), "ingest.max_payload_bytes"],
    )?;
    let status = grpc.ingest().publish_event(event(over)).await.err().context("it is accepted")?;
    ensure!(
        status.code() == Code::InvalidArgument
            && status.message().contains("ingest.max_payload_bytes"),
        "{status:?}"
    );
    let refused = scenario
        .rest
        .send(Method::POST, &scenario.path("events"), vec![b' '; MOST_REQUEST + 1])
        .await?;
    is_too_large(&refused, &[&MOST_REQUEST.to_string(), "gateway.max_request_bytes"])?;
    Ok(())
}

async fn publish(scenario: &Scenario, payload: &Bytes) -> Result<Reply> {
    let data = STANDARD.encode(payload);
    let body = format!(
        r#"{{"event_type": "large", "content_type": "application/octet-stream",
            "data_base64": "{data}"}}"#
    );
    scenario.rest.send(Method::POST, &scenario.path("events"), body).await
}

fn is_too_large(refused: &Reply, told: &[&str]) -> Result<()> {
    let shown = String::from_utf8_lossy(&refused.body);
    ensure!(
        refused.status == 413 && refused.reason() == "TOO_LARGE",
        "{}: {shown}",
        refused.status
    );
    ensure!(told.iter().all(|part| shown.contains(part)), "{told:?} is not in {shown}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_takes_what_the_settings_allow() {
    run_with_shares(2, async || raised(Shape::Sqlite).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_takes_what_the_settings_allow() {
    run_with_shares(2, async || raised(Shape::Postgres).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn six_processes_take_what_the_settings_allow() {
    run_with_shares(3, async || raised(Shape::Mesh).await).await;
}
