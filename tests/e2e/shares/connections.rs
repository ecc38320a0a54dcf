//! Connections: one key opens all that it can, and others can still connect.

use anyhow::{Context, Result, ensure};
use outrider_tests::{Outrider, Shape};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Caller, Callers, in_time, of_resource, start};
use crate::scenario::{run_with_shares, with_logs};

/// A single key keeps a quarter of them.
const ALL: usize = 40;
const KEY: usize = ALL / 4;
const RESERVED: usize = 10;

/// Publishes on a connection, which stays open. Returns the status of the answer, or `None` if the
/// connection is closed.
async fn publish(socket: &mut TcpStream, caller: &Caller) -> Option<u16> {
    let body = r#"{"event_type": "shares.tested", "data": 1}"#;
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: \
            application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        caller.path("events"),
        caller.token,
        body.len()
    );
    socket.write_all(request.as_bytes()).await.ok()?;
    let mut answer = [0; 4096];
    let read = socket.read(&mut answer).await.ok()?;
    std::str::from_utf8(&answer[..read]).ok()?.get(9..12)?.parse().ok()
}

async fn open(caller: &Caller) -> Result<TcpStream> {
    let mut socket = TcpStream::connect(&caller.address).await?;
    let status = in_time("an answer", async { Ok(publish(&mut socket, caller).await) }).await?;
    ensure!(status == Some(200), "{caller:?}: {status:?}");
    Ok(socket)
}

async fn connections(shape: Shape) -> Result<()> {
    let outrider = start(
        shape,
        json!({"gateway": {"max_connections": ALL, "reserved_connections": RESERVED}}),
    )?;
    let outcome = connections_of(&outrider).await;
    outcome.map_err(|error| with_logs(&error, &outrider))
}

async fn connections_of(outrider: &Outrider) -> Result<()> {
    let Callers { greedy, others } = Callers::new(outrider).await?;
    let mut held = Vec::new();
    for _ in 0..2 * ALL {
        held.push(open(&greedy).await?);
    }
    let kept = of_resource(outrider, "held", "connections").await?;
    ensure!(kept >= 1.0 && kept <= (KEY + 1) as f64, "{kept} are kept");
    let mut open_beside = Vec::new();
    for caller in others.iter().cycle().take(2 * others.len()) {
        open_beside.push((caller, open(caller).await.context("another key")?));
        // The greedy key continues.
        held.push(open(&greedy).await?);
    }
    for (caller, socket) in &mut open_beside[..others.len()] {
        ensure!(publish(socket, caller).await == Some(200), "{caller:?}: its connection is closed");
    }
    let mut alive = 0;
    for socket in &mut held {
        alive += usize::from(publish(socket, &greedy).await.is_some());
    }
    ensure!(alive < ALL - RESERVED, "{alive} connections of one key are open");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_divided() {
    run_with_shares(1, async || connections(Shape::Sqlite).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_divided_over_six_processes() {
    run_with_shares(2, async || connections(Shape::Mesh).await).await;
}
