//! Newline-delimited JSON at the public port.

use anyhow::{Result, ensure};
use outrider_tests::client::exchange;
use serde_json::{Value, json};

use crate::scenario::{BOUND, Scenario, text};

scenarios!(lines_are_published_and_answered, a_large_upload_is_taken);

/// Uploads a body in chunks and gives the lines of the answer.
async fn upload(scenario: &Scenario, body: &str) -> Result<Vec<Value>> {
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/x-ndjson\r\n\
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
    let answer = exchange(&scenario.address, [parts]).await?;
    ensure!(answer.status == 200, "{}", answer.text.lines().take(20).collect::<Vec<_>>().join("\n"));
    let (_, chunks) = answer.text.split_once("\r\n\r\n").unwrap_or_default();
    // The sizes of chunks stand between the lines: they are put together again.
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
    let body = "{\"event_type\": \"item.made\", \"data\": {\"n\": 1.0}}\n\n{\"event_type\": \"not good\", \"data\": 1}\nnonsense\n\
                {\"event_type\": \"item.made\", \"data\": 2, \"idempotency_key\": \"k\"}\n\
                {\"event_type\": \"item.made\", \"data\": 2, \"idempotencyKey\": \"k\"}";
    let lines = upload(scenario, body).await?;
    ensure!(lines.len() == 5, "{lines:?}");
    ensure!(lines.iter().map(|line| line["line"].as_u64()).eq([1, 3, 4, 5, 6].map(Some)), "{lines:?}");
    let first = text(&lines[0]["accepted"], "event_id")?;
    ensure!(lines[1]["error"]["violations"][0]["field"] == "event_type", "{}", lines[1]);
    ensure!(lines[2]["error"]["reason"] == "MALFORMED_REQUEST", "{}", lines[2]);
    let key = text(&lines[3]["accepted"], "event_id")?;
    ensure!(lines[4]["accepted"]["event_id"] == key.as_str() && lines[4]["accepted"]["duplicate"] == true, "{}", lines[4]);
    scenario.arrived("/lines", 2, BOUND).await?;
    ensure!(scenario.receiver.received_of("/lines", &first)[0].body == "{\"n\": 1.0}", "to the byte");
    Ok(())
}

async fn a_large_upload_is_taken(scenario: &Scenario) -> Result<()> {
    let line = |number: usize| format!("{{\"event_type\": \"unheard\", \"data\": \"{number:0>1000}\"}}\n");
    let body: String = (0..10_000).map(line).collect();
    ensure!(body.len() > 10_000_000, "larger than any request may be");
    let lines = upload(scenario, &body).await?;
    ensure!(lines.len() == 10_000 && lines.iter().all(|line| line["accepted"]["event_id"].is_string()), "{:?}", lines.last());
    Ok(())
}
