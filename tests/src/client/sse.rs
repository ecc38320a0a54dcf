//! Reads server-sent events by the standard (WHATWG HTML, "Server-sent events").

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// The time within which a stream must send something. Heartbeats come every 15 s.
const DEADLINE: Duration = Duration::from_secs(40);

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The latest id.
    pub id: String,
    /// The name, or `message` if there is none.
    pub name: String,
    /// The data, which is JSON here.
    pub data: Value,
}

/// An open stream.
#[derive(Debug)]
pub struct EventSource {
    body: Incoming,
    text: String,
    id: String,
}

impl EventSource {
    /// Opens a stream over HTTP/1.1 on a separate connection. It begins after `last_event_id`, if
    /// that is not empty.
    pub async fn open(address: &str, path: &str, token: &str, last_event_id: &str) -> Result<Self> {
        let io = TokioIo::new(TcpStream::connect(address).await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(connection);
        let mut request = Request::get(path)
            .header(header::HOST, address)
            .header(header::ACCEPT, "text/event-stream");
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        if !last_event_id.is_empty() {
            request = request.header("last-event-id", last_event_id);
        }
        let answer = tokio::time::timeout(
            DEADLINE,
            sender.send_request(request.body(Empty::<Bytes>::new())?),
        )
        .await??;
        if answer.status() != 200 {
            let (status, body) = (answer.status(), answer.into_body().collect().await?.to_bytes());
            bail!("{status}: {}", String::from_utf8_lossy(&body));
        }
        let kind = answer
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        ensure!(kind.starts_with("text/event-stream"), "not a stream of events: {kind}");
        Ok(Self { body: answer.into_body(), text: String::new(), id: last_event_id.to_owned() })
    }

    /// Returns the next event, or `None` when the stream has ended.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return self.event(&block).map(Some);
            }
            let frame = tokio::time::timeout(DEADLINE, self.body.frame())
                .await
                .context("the stream is silent")?;
            let Some(frame) = frame else { return Ok(None) };
            if let Ok(data) = frame?.into_data() {
                self.text.push_str(std::str::from_utf8(&data)?);
            }
        }
    }

    fn event(&mut self, block: &str) -> Result<Event> {
        let (mut name, mut data) = ("message", Vec::new());
        for line in block.lines() {
            match line.split_once(": ").unwrap_or((line, "")) {
                ("id", value) => value.clone_into(&mut self.id),
                ("event", value) => name = value,
                ("data", value) => data.push(value),
                _ => {}
            }
        }
        let data =
            serde_json::from_str(&data.join("\n")).with_context(|| format!("no JSON: {block}"))?;
        Ok(Event { id: self.id.clone(), name: name.to_owned(), data })
    }
}
