//! Publishes over StreamEvents. Events that are not acknowledged are kept, and sent again on the
//! next connection.

use std::{collections::VecDeque, time::Duration};

use outrider_model::Reason;
use outrider_proto::ingest::{
    NewEvent, StreamAck, StreamEventsRequest, StreamEventsResponse, StreamOpen, StreamOpened,
    StreamRejection, StreamedEvent, ingest_service_client::IngestServiceClient,
    stream_events_request::Kind, stream_events_response::Kind as Told,
};
use outrider_rpc::{cause, from_status, status::from_message};
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use super::{
    Failure,
    connection::{Service, Session, WHOLE},
    tally::Tally,
};
use crate::printable::printable;

/// Maximum number of connections in a row without an acknowledgment.
const TRIES: u32 = 10;
/// The wait before the second connection. It doubles each time.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Maximum number of messages that wait for the connection.
const OUTBOUND_MESSAGES: usize = 64;

/// A line that is not blank.
#[derive(Debug)]
pub struct Line {
    /// From 1.
    pub number: u64,
    /// The event, or the reason why the line is not one.
    pub event: Result<NewEvent, String>,
}

/// An event that is not acknowledged.
struct Unacknowledged {
    line: u64,
    event: NewEvent,
    /// Whether its rejection was printed. It may be rejected again after a reconnect.
    refused: bool,
}

pub struct Publisher {
    api: IngestServiceClient<Service>,
    project: String,
    stream_id: String,
    /// The sequence number of the first kept event.
    first: u64,
    kept: VecDeque<Unacknowledged>,
    /// Bytes of their payloads.
    bytes: u64,
    /// Whether there are no more lines.
    at_end: bool,
}

/// The end of a connection.
enum End {
    /// Everything is acknowledged.
    Done,
    /// The connection broke, or the server asked for another, possibly after a time.
    Again(String, Option<Duration>),
}

impl Publisher {
    /// Publishes over a session. A stream without a name gets a unique one.
    pub fn new(session: &Session, stream_id: Option<String>) -> Result<Self, Failure> {
        Ok(Self {
            api: IngestServiceClient::new(session.service()).max_decoding_message_size(WHOLE),
            project: session.project()?,
            stream_id: stream_id.unwrap_or_else(|| format!("cli-{:032x}", rand::random::<u128>())),
            first: 1,
            kept: VecDeque::new(),
            bytes: 0,
            at_end: false,
        })
    }

    /// Publishes all lines, over as many connections as necessary.
    pub async fn publish(
        &mut self,
        lines: &mut mpsc::Receiver<Result<Line, Failure>>,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let mut tries = 0;
        loop {
            let before = self.first;
            let outcome = self.connection(lines, tally).await;
            let outcome = outcome.or_else(|failure| match failure {
                Broken::For(failure) => Err(failure),
                Broken::Status(status) => again(status),
            });
            match outcome {
                Ok(End::Done) => return Ok(()),
                Ok(End::Again(why, after)) => {
                    tries = if self.first > before { 1 } else { tries + 1 };
                    if tries > TRIES {
                        self.tell_what_is_open(tally);
                        return Err(Failure::Unreachable(why));
                    }
                    tally.say(&format!("connecting again: {why}"));
                    tokio::time::sleep(after.unwrap_or_default().max(wait(tries))).await;
                }
                Err(failure) => {
                    self.tell_what_is_open(tally);
                    return Err(failure);
                }
            }
        }
    }

    fn tell_what_is_open(&self, tally: &Tally) {
        if let (Some(first), Some(last)) = (self.kept.front(), self.kept.back()) {
            tally.say(&format!(
                "lines {} to {} were not acknowledged; --stream {} with the same input goes on \
                    from there",
                first.line, last.line, self.stream_id
            ));
        }
    }

    async fn connection(
        &mut self,
        lines: &mut mpsc::Receiver<Result<Line, Failure>>,
        tally: &mut Tally,
    ) -> Result<End, Broken> {
        let (out, messages) = mpsc::channel(OUTBOUND_MESSAGES);
        let open =
            StreamOpen { project_id: self.project.clone(), stream_id: self.stream_id.clone() };
        // The channel is new, so there is room.
        let _ = out.send(StreamEventsRequest { kind: Some(Kind::Open(open)) }).await;
        let outbound = futures::stream::unfold(messages, async |mut messages| {
            Some((messages.recv().await?, messages))
        });
        let mut inbound = self.api.stream_events(outbound).await?.into_inner();
        let Some(window) = opened(&mut inbound).await? else { return Ok(ended_early()) };
        // The number of kept events that were sent on this connection.
        let mut sent = 0;
        while !(self.at_end && self.kept.is_empty()) {
            let room =
                self.kept.len() < window.window_events as usize && self.bytes < window.window_bytes;
            let may_read = !self.at_end && room && sent == self.kept.len();
            tokio::select! {
                message = inbound.message() => match message?.map(|message| message.kind) {
                    Some(Some(Told::Ack(ack))) => sent -= self.acknowledge(&ack, tally),
                    Some(Some(Told::Rejection(one))) => self.reject(&one, tally),
                    Some(_) => {}
                    None => return Ok(ended_early()),
                },
                // If nothing more is accepted, the response has the reason.
                Ok(place) = out.reserve(), if sent < self.kept.len() => {
                    place.send(self.message(sent));
                    sent += 1;
                }
                line = lines.recv(), if may_read => match line {
                    Some(line) => self.keep(line.map_err(Broken::For)?, tally),
                    None => self.at_end = true,
                },
            }
        }
        // The server ends the call. Whatever it says, everything is acknowledged.
        drop(out);
        while let Ok(Some(_)) = inbound.message().await {}
        Ok(End::Done)
    }

    /// Returns the message of a kept event.
    fn message(&self, index: usize) -> StreamEventsRequest {
        let event = StreamedEvent {
            sequence: self.first + index as u64,
            event: Some(self.kept[index].event.clone()),
            ..StreamedEvent::default()
        };
        StreamEventsRequest { kind: Some(Kind::Event(event)) }
    }

    fn keep(&mut self, line: Line, tally: &mut Tally) {
        match line.event {
            Ok(event) => {
                self.bytes += event.payload.len() as u64;
                self.kept.push_back(Unacknowledged { line: line.number, event, refused: false });
            }
            Err(why) => tally.refuse(line.number, &why),
        }
    }

    /// Forgets acknowledged events. Returns their number.
    fn acknowledge(&mut self, ack: &StreamAck, tally: &mut Tally) -> usize {
        tally.accept(ack);
        let mut count = 0;
        while self.first <= ack.sequence
            && let Some(kept) = self.kept.pop_front()
        {
            self.bytes -= kept.event.payload.len() as u64;
            self.first += 1;
            count += 1;
        }
        count
    }

    fn reject(&mut self, rejection: &StreamRejection, tally: &mut Tally) {
        let index = rejection
            .sequence
            .checked_sub(self.first)
            .and_then(|index| usize::try_from(index).ok());
        let Some(kept) = index.and_then(|index| self.kept.get_mut(index)) else { return };
        if !std::mem::replace(&mut kept.refused, true) {
            let why = from_message(&rejection.error.clone().unwrap_or_default());
            tally.refuse(kept.line, &Failure::Refused(why).to_string());
        }
    }
}

/// The reason why a connection ended.
enum Broken {
    /// An error of the server or the network.
    Status(Status),
    /// A permanent failure.
    For(Failure),
}

impl From<Status> for Broken {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// Returns the window, which is in the first message of the server.
async fn opened(
    inbound: &mut Streaming<StreamEventsResponse>,
) -> Result<Option<StreamOpened>, Status> {
    while let Some(message) = inbound.message().await? {
        if let Some(Told::Opened(opened)) = message.kind {
            return Ok(Some(opened));
        }
    }
    Ok(None)
}

fn ended_early() -> End {
    End::Again("the server ended the stream".to_owned(), None)
}

/// Whether another connection may help.
fn again(status: Status) -> Result<End, Failure> {
    // An error without details does not come from our server, but from the network.
    let of_network = status.details().is_empty()
        && matches!(
            status.code(),
            Code::Unavailable
                | Code::Unknown
                | Code::Cancelled
                | Code::Internal
                | Code::DeadlineExceeded
        );
    let error = from_status(&status);
    let passing = matches!(
        error.reason,
        Reason::Unavailable
            | Reason::ShuttingDown
            | Reason::Overloaded
            | Reason::ShareExhausted
            | Reason::StreamIdle
            | Reason::DeadlineExceeded
    );
    match (of_network, passing) {
        (true, _) => Ok(End::Again(printable(&cause::of_status(&status)), error.retry_after)),
        (false, true) => Ok(End::Again(printable(&error.message), error.retry_after)),
        (false, false) => Err(status.into()),
    }
}

/// Returns the wait after this many failed connections. It is randomized, so that many clients do
/// not return together.
fn wait(tries: u32) -> Duration {
    let wait = FIRST_WAIT.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(LONGEST_WAIT);
    wait.mul_f64(rand::random_range(0.5..1.0))
}
