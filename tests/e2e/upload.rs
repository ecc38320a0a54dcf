//! Newline-delimited JSON on the public port.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::scenario::{BOUND, Scenario, text};

scenarios! {
    everywhere: [
        lines_are_published_and_answered,
        a_large_upload_is_taken,
    ],
}

/// Reads while it writes, as curl does, to the end of the connection.
async fn duplex(address: &str, request: &[u8]) -> Result<String> {
    let (mut reader, mut writer) = TcpStream::connect(address).await?.into_split();
    let mut answer = String::new();
    let (written, read) =
        tokio::join!(writer.write_all(request), reader.read_to_string(&mut answer));
    read?;
    written.with_context(|| answer.chars().take(1_000).collect::<String>())?;
    Ok(answer)
}

/// Uploads a body in chunks, and returns the lines of the answer.
async fn upload(scenario: &Scenario, body: &str) -> Result<Vec<Value>> {
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: \
            application/x-ndjson\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        scenario.path("events:batch"),
        scenario.token
    );
    let mut parts = head.into_bytes();
    for part in body.as_bytes().chunks(60_000) {
        parts.extend(format!("{:x}\r\n", part.len()).into_bytes());
        parts.extend(part);
        parts.extend(b"\r\n");
    }
    parts.extend(b"0\r\n\r\n");
    let answer = tokio::time::timeout(BOUND, duplex(&scenario.address, &parts))
        .await
        .context("the server hangs")??;
    let (head, chunks) = answer.split_once("\r\n\r\n").unwrap_or_default();
    ensure!(
        head.starts_with("HTTP/1.1 200 "),
        "{head}\n{}",
        chunks.chars().take(1_000).collect::<String>()
    );
    // Join the chunks: a line with its size precedes each of them.
    let (mut rest, mut lines) = (chunks, String::new());
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16)?;
        lines.push_str(&after[..size]);
        rest = &after[(size + 2).min(after.len())..];
    }
    Ok(lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

async fn lines_are_published_and_answered(scenario: &Scenario) -> Result<()> {
    scenario.target("/lines", &["item.made"], json!({})).await?;
    let body = "{\"event_type\": \"item.made\", \"data\": {\"n\": 1.0}}\n\n{\"event_type\": \"not \
        good\", \"data\": 1}\nnonsense\n\
                {\"event_type\": \"item.made\", \"data\": 2, \"idempotency_key\": \"k\"}\n\
                {\"event_type\": \"item.made\", \"data\": 2, \"idempotencyKey\": \"k\"}";
    let lines = upload(scenario, body).await?;
    ensure!(lines.len() == 5, "{lines:?}");
    ensure!(
        lines.iter().map(|line| line["line"].as_u64()).eq([1, 3, 4, 5, 6].map(Some)),
        "{lines:?}"
    );
    let first = text(&lines[0]["accepted"], "event_id")?;
    ensure!(lines[1]["error"]["violations"][0]["field"] == "event_type", "{}", lines[1]);
    ensure!(lines[2]["error"]["reason"] == "MALFORMED_REQUEST", "{}", lines[2]);
    let key = text(&lines[3]["accepted"], "event_id")?;
    ensure!(
        lines[4]["accepted"]["event_id"] == key.as_str()
            && lines[4]["accepted"]["duplicate"] == true,
        "{}",
        lines[4]
    );
    scenario.arrived("/lines", 2, BOUND).await?;
    ensure!(
        scenario.receiver.received_of("/lines", &first)[0].body == "{\"n\": 1.0}",
        "to the byte"
    );
    Ok(())
}

async fn a_large_upload_is_taken(scenario: &Scenario) -> Result<()> {
    let line =
        |number: usize| format!("{{\"event_type\": \"unheard\", \"data\": \"{number:0>1000}\"}}\n");
    let body: String = (0..10_000).map(line).collect();
    ensure!(body.len() > 10_000_000, "larger than any request may be");
    let lines = upload(scenario, &body).await?;
    ensure!(
        lines.len() == 10_000 && lines.iter().all(|line| line["accepted"]["event_id"].is_string()),
        "{:?}",
        lines.last()
    );
    Ok(())
}
