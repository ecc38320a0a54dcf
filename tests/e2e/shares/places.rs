//! Resources that are counted: tails, streams of events, uploads.

use anyhow::{Context, Result, bail, ensure};
use outrider_proto::dispatch::{TailEventsRequest, TailEventsResponse};
use outrider_tests::{Outrider, Shape, client::Connection, wait_until};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Streaming;

use super::{Caller, Callers, Refusal, in_time, of_resource, returned, start};
use crate::scenario::{BOUND, run_with_shares};

/// The amount of each resource. A single key has a quarter.
const ALL: usize = 16;
const KEY: usize = ALL / 4;

type Opened<T> = Result<Result<T, Refusal>>;

async fn tail(caller: &Caller) -> Opened<Streaming<TailEventsResponse>> {
    let request =
        TailEventsRequest { project_id: caller.project.clone(), ..TailEventsRequest::default() };
    match caller.grpc().await?.events().tail_events(request).await {
        Ok(answer) => Ok(Ok(answer.into_inner())),
        Err(status) => Ok(Err(Refusal::of_status(&status))),
    }
}

async fn stream(caller: &Caller) -> Opened<Connection> {
    let opened = Connection::open(&caller.grpc().await?, &caller.project, "s").await;
    Ok(opened.map_err(|status| Refusal::of_status(&status)))
}

/// Opens an upload that has its first result and may send more lines.
async fn upload(caller: &Caller) -> Opened<TcpStream> {
    let line = "{\"event_type\": \"a\", \"data\": 1}\n";
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: \
            application/x-ndjson\r\n\
         Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{line}\r\n",
        caller.path("events:batch"),
        caller.token,
        line.len()
    );
    let mut socket = TcpStream::connect(&caller.address).await?;
    socket.write_all(request.as_bytes()).await?;
    let (mut answer, mut buffer) = (String::new(), [0; 4096]);
    loop {
        let read = socket.read(&mut buffer).await?;
        ensure!(read > 0, "it was closed after {answer:?}");
        answer.push_str(std::str::from_utf8(&buffer[..read])?);
        let Some((head, body)) = answer.split_once("\r\n\r\n") else { continue };
        if head.starts_with("HTTP/1.1 200 ") && body.contains("accepted") {
            return Ok(Ok(socket));
        }
        if head.starts_with("HTTP/1.1 4")
            && let Ok(error) = serde_json::from_str::<Value>(body)
        {
            let field = |name: &str| error["error"][name].as_str().unwrap_or_default().to_owned();
            let retry = head.to_ascii_lowercase().contains("\r\nretry-after: ");
            return Ok(Err(Refusal { reason: field("reason"), message: field("message"), retry }));
        }
    }
}

/// The greedy key takes all that it can, and each of the others still gets one.
async fn divided<T>(
    shape: Shape,
    resource: &str,
    open: impl AsyncFn(&Caller) -> Opened<T>,
) -> Result<()> {
    let settings = json!({
        "gateway": {"max_uploads": ALL}, "ingest": {"max_streams": ALL},
            "dispatch": {"max_tails": ALL},
    });
    let outrider = start(shape, settings)?;
    let outcome = in_turn(&outrider, resource, open).await;
    outcome.map_err(|error| crate::scenario::with_logs(&error, &outrider))
}

async fn in_turn<T>(
    outrider: &Outrider,
    resource: &str,
    open: impl AsyncFn(&Caller) -> Opened<T>,
) -> Result<()> {
    let Callers { greedy, others } = Callers::new(outrider).await?;
    returned(outrider, resource).await?;
    let mut held = Vec::new();
    let refusal = loop {
        match in_time("the greedy key", open(&greedy)).await? {
            Ok(one) => held.push(one),
            Err(refusal) => break refusal,
        }
        ensure!(held.len() <= ALL, "nothing is refused");
    };
    refusal.is_of_the_key()?;
    ensure!(held.len() == KEY, "{} of {ALL}", held.len());
    ensure!(
        of_resource(outrider, "refused_total", resource).await? >= 1.0,
        "the refusal is not counted"
    );
    for other in &others {
        match in_time("another key", open(other)).await? {
            Ok(one) => held.push(one),
            Err(refusal) => bail!("{other:?}: {refusal}"),
        }
    }
    let counted = of_resource(outrider, "held", resource).await?;
    ensure!(counted == (KEY + others.len()) as f64, "{counted} are held");
    drop(held);
    returned(outrider, resource).await?;
    wait_until("the greedy key gets one again", BOUND, async || open(&greedy).await.ok()?.ok())
        .await
        .map(drop)
        .context(resource.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tails_are_divided() {
    run_with_shares(1, async || divided(Shape::Sqlite, "tails", tail).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tails_are_divided_over_six_processes() {
    run_with_shares(2, async || divided(Shape::Mesh, "tails", tail).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_events_are_divided() {
    run_with_shares(1, async || divided(Shape::Sqlite, "event-streams", stream).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_events_are_divided_over_six_processes() {
    run_with_shares(2, async || divided(Shape::Mesh, "event-streams", stream).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_are_divided() {
    run_with_shares(1, async || divided(Shape::Sqlite, "uploads", upload).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_are_divided_over_six_processes() {
    run_with_shares(2, async || divided(Shape::Mesh, "uploads", upload).await).await;
}
