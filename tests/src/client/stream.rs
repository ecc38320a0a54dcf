//! A producer of StreamEvents that follows docs/streaming.md.

use std::{collections::VecDeque, time::Duration};

use anyhow::{Context, Result, bail};
use futures::{Stream, StreamExt};
use outrider_proto::ingest::{
    NewEvent, StreamEventsRequest, StreamEventsResponse, StreamOpen, StreamOpened, StreamRejection,
    StreamedEvent, stream_events_request::Kind, stream_events_response::Kind as Told,
};
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use super::{Grpc, grpc::Bearer};

/// The time within which each message of the server must arrive.
const DEADLINE: Duration = Duration::from_secs(60);
/// How many consecutive connections may fail.
const TRIES: u32 = 100;

/// One connection of a stream.
#[derive(Debug)]
pub struct Connection {
    /// Messages of the client. Dropping this ends the client's side.
    pub out: mpsc::Sender<StreamEventsRequest>,
    /// Messages of the server.
    pub inbound: Streaming<StreamEventsResponse>,
    /// The window: how much may be in flight.
    pub window: StreamOpened,
}

/// Returns a message with an event.
#[must_use]
pub fn streamed(sequence: u64, event: NewEvent) -> StreamEventsRequest {
    StreamEventsRequest {
        kind: Some(Kind::Event(StreamedEvent {
            sequence,
            event: Some(event),
            ..StreamedEvent::default()
        })),
    }
}

impl Connection {
    /// Opens a new stream, or resumes one.
    pub async fn open(grpc: &Grpc, project: &str, stream_id: &str) -> Result<Self, Status> {
        let (out, messages) = mpsc::channel(64);
        let open = StreamOpen { project_id: project.to_owned(), stream_id: stream_id.to_owned() };
        let first = StreamEventsRequest { kind: Some(Kind::Open(open)) };
        out.send(first).await.map_err(|_| Status::internal("a new channel is closed"))?;
        let outbound =
            futures::stream::unfold(messages, async |mut messages: mpsc::Receiver<_>| {
                Some((messages.recv().await?, messages))
            });
        let mut inbound = grpc.ingest().stream_events(outbound).await?.into_inner();
        match next(&mut inbound).await? {
            Some(Told::Opened(window)) => Ok(Self { out, inbound, window }),
            other => Err(Status::unavailable(format!("not opened: {other:?}"))),
        }
    }

    /// Returns the next message, or `None` at a regular end.
    pub async fn next(&mut self) -> Result<Option<Told>, Status> {
        next(&mut self.inbound).await
    }
}

async fn next(inbound: &mut Streaming<StreamEventsResponse>) -> Result<Option<Told>, Status> {
    let message = tokio::time::timeout(DEADLINE, inbound.message()).await;
    // Outrider never answers this code, so it does not look like a broken connection.
    let message = message
        .map_err(|_| Status::new(Code::DataLoss, format!("no message within {DEADLINE:?}")))??;
    Ok(message.and_then(|message| message.kind))
}

/// A producer that connects again whenever its connection breaks.
#[derive(Debug)]
pub struct Producer {
    url: String,
    bearer: Bearer,
    project: String,
    stream_id: String,
    /// The sequence number of the first event that is not acknowledged.
    first: u64,
    kept: VecDeque<NewEvent>,
    /// How often it connected.
    pub connections: u32,
    /// How many events are acknowledged as durable, including those that already were.
    pub accepted: u64,
    /// How many of those were already durable.
    pub duplicates: u64,
    /// The rejected events.
    pub rejections: Vec<StreamRejection>,
    /// How connections ended before everything was acknowledged.
    pub ends: Vec<Status>,
}

impl Producer {
    /// Creates a producer for a base URL.
    pub fn new(url: &str, token: &str, project: &str, stream_id: &str) -> Result<Self> {
        Ok(Self {
            url: url.to_owned(),
            bearer: Bearer::new(token)?,
            project: project.to_owned(),
            stream_id: stream_id.to_owned(),
            first: 1,
            kept: VecDeque::new(),
            connections: 0,
            accepted: 0,
            duplicates: 0,
            rejections: Vec::new(),
            ends: Vec::new(),
        })
    }

    /// Returns the sequence number up to which everything is acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.first - 1
    }

    /// Publishes events over as many connections as needed, and reports the progress after each
    /// message. Returns when all are acknowledged.
    pub async fn publish(
        &mut self,
        events: &mut (impl Stream<Item = NewEvent> + Unpin),
        mut told: impl FnMut(u64),
    ) -> Result<()> {
        let mut tries = 0;
        loop {
            let before = self.first;
            let status = match self.connection(events, &mut told).await {
                Ok(true) => return Ok(()),
                Ok(false) => Status::unavailable("the server ended the stream"),
                Err(status) => status,
            };
            self.ends.push(status.clone());
            let passing = [
                Code::Unavailable,
                Code::Unknown,
                Code::Cancelled,
                Code::Internal,
                Code::ResourceExhausted,
            ];
            if !passing.contains(&status.code()) {
                return Err(status).with_context(|| format!("after {}", self.acknowledged()));
            }
            tries = if self.first > before { 1 } else { tries + 1 };
            if tries > TRIES {
                bail!("{TRIES} connections in vain, the last: {status}");
            }
            tokio::time::sleep(Duration::from_millis(10 * u64::from(tries.min(20)))).await;
        }
    }

    /// Runs one connection. Returns whether everything is acknowledged.
    async fn connection(
        &mut self,
        events: &mut (impl Stream<Item = NewEvent> + Unpin),
        told: &mut impl FnMut(u64),
    ) -> Result<bool, Status> {
        let unreachable = |error: anyhow::Error| Status::unavailable(format!("{error:#}"));
        let grpc = Grpc::with_bearer(&self.url, self.bearer.clone()).await.map_err(unreachable)?;
        self.connections += 1;
        let Connection { out, mut inbound, window } =
            Connection::open(&grpc, &self.project, &self.stream_id).await?;
        let (mut sent, mut at_end) = (0, false);
        loop {
            let more = !at_end
                && sent == self.kept.len()
                && self.kept.len() < window.window_events as usize;
            if at_end && self.kept.is_empty() {
                drop(out);
                while next(&mut inbound).await?.is_some() {}
                return Ok(true);
            }
            tokio::select! {
                message = next(&mut inbound) => {
                    let Some(message) = message? else { return Ok(false) };
                    let before = self.kept.len();
                    self.take(message);
                    sent -= before - self.kept.len();
                    told(self.acknowledged());
                }
                Ok(place) = out.reserve(), if sent < self.kept.len() => {
                    place.send(streamed(self.first + sent as u64, self.kept[sent].clone()));
                    sent += 1;
                }
                event = events.next(), if more => match event {
                    Some(event) => self.kept.push_back(event),
                    None => at_end = true,
                },
            }
        }
    }

    fn take(&mut self, message: Told) {
        match message {
            Told::Ack(ack) => {
                self.accepted += u64::from(ack.accepted_count);
                self.duplicates += u64::from(ack.duplicate_count);
                while self.first <= ack.sequence && self.kept.pop_front().is_some() {
                    self.first += 1;
                }
            }
            Told::Rejection(rejection) => self.rejections.push(rejection),
            Told::Opened(_) => {}
        }
    }
}
