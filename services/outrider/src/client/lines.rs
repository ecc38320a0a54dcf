//! `outrider publish --lines`: many events, a JSON object per line, sent in batches.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, IsTerminal as _, Read, Write as _},
    path::Path,
};

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use outrider_proto::ingest::{
    BatchPublishEventsRequest, BatchPublishEventsResult, NewEvent, batch_publish_events_result::Result as Outcome,
    ingest_service_client::IngestServiceClient,
};
use outrider_rpc::status::from_message;
use prost::Message;
use serde::{Deserialize, Deserializer};
use serde_json::{json, value::RawValue};

use super::{
    ClientOptions, Failure,
    connection::{Service, Session},
    input::instant,
    publish::source,
};

/// The most events of a batch.
const BATCH_EVENTS: usize = 1_000;
/// The most bytes of a batch as it is sent: what servers take by default.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// The longest line, in bytes.
const LINE_BYTES: u64 = 16 * 1024 * 1024;
/// Refusals that are told one by one.
const TOLD: u64 = 20;

/// An event as REST takes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(alias = "eventType")]
    event_type: String,
    #[serde(default, borrow, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(alias = "dataBase64")]
    data_base64: Option<String>,
    #[serde(default, alias = "contentType")]
    content_type: String,
    #[serde(default, alias = "idempotencyKey")]
    idempotency_key: String,
    #[serde(default)]
    headers: HashMap<String, String>,
    #[serde(default)]
    metadata: HashMap<String, String>,
    #[serde(default, alias = "orderingKey")]
    ordering_key: String,
    #[serde(alias = "deliverAt")]
    deliver_at: Option<String>,
}

/// A `null` that is written is a payload, not the absence of one.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

fn parse(text: &str) -> Result<NewEvent, String> {
    let line: Line = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let payload = match (line.data, line.data_base64) {
        (Some(_), Some(_)) => return Err("has both data and data_base64".into()),
        (Some(data), None) => data.get().as_bytes().to_vec(),
        (None, Some(text)) => STANDARD.decode(text).map_err(|_| "data_base64: is not base64")?,
        (None, None) => Vec::new(),
    };
    Ok(NewEvent {
        event_type: line.event_type,
        payload: payload.into(),
        content_type: line.content_type,
        idempotency_key: line.idempotency_key,
        headers: line.headers,
        metadata: line.metadata,
        ordering_key: line.ordering_key,
        deliver_at: line.deliver_at.map(|text| instant(&text).map_err(|error| format!("deliver_at: {error}"))).transpose()?,
    })
}

/// Publishes every line. Fails when any event was refused.
pub async fn run(options: &ClientOptions, path: &Path) -> Result<(), Failure> {
    let mut reader = BufReader::new(source(path)?);
    let session = Session::open(options).await?;
    let mut sender = Sender::new(&session)?;
    let outcome = sender.send_all(&mut reader, path).await;
    sender.summary();
    outcome?;
    match sender.tally.refused {
        0 => Ok(()),
        refused => Err(anyhow::anyhow!("{refused} of {} events were refused", sender.tally.lines()).into()),
    }
}

#[derive(Default)]
struct Tally {
    accepted: u64,
    duplicates: u64,
    refused: u64,
    deliveries: u64,
    /// Accepted with warnings.
    warned: u64,
}

impl Tally {
    fn lines(&self) -> u64 {
        self.accepted + self.refused
    }
}

struct Sender {
    api: IngestServiceClient<Service>,
    project: String,
    json: bool,
    progress: bool,
    tally: Tally,
    /// The events of the next batch with the numbers of their lines.
    batch: Vec<(u64, NewEvent)>,
    bytes: usize,
}

impl Sender {
    fn new(session: &Session) -> Result<Self, Failure> {
        Ok(Self {
            api: IngestServiceClient::new(session.service()),
            project: session.project()?,
            json: session.output.json,
            progress: std::io::stderr().is_terminal(),
            tally: Tally::default(),
            batch: Vec::new(),
            bytes: 0,
        })
    }

    async fn send_all(&mut self, reader: &mut impl BufRead, path: &Path) -> Result<(), Failure> {
        let mut text = Vec::new();
        for number in 1_u64.. {
            text.clear();
            let read = reader.by_ref().take(LINE_BYTES).read_until(b'\n', &mut text);
            if read.with_context(|| format!("cannot read {}", path.display()))? == 0 {
                break;
            }
            if text.len() as u64 == LINE_BYTES && !text.ends_with(b"\n") {
                return Err(Failure::Usage(format!(
                    "line {number} has more than {LINE_BYTES} bytes: nothing was sent from it on"
                )));
            }
            if text.trim_ascii().is_empty() {
                continue;
            }
            match std::str::from_utf8(&text).map_err(|_| "is not UTF-8".to_owned()).and_then(parse) {
                Ok(event) => self.add(number, event).await?,
                Err(why) => self.refuse(number, &why),
            }
        }
        self.flush().await
    }

    async fn add(&mut self, number: u64, event: NewEvent) -> Result<(), Failure> {
        // The tag and length of each event in the batch.
        let size = event.encoded_len() + 8;
        if self.bytes + size > BATCH_BYTES || self.batch.len() == BATCH_EVENTS {
            self.flush().await?;
        }
        self.bytes += size;
        self.batch.push((number, event));
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        self.bytes = 0;
        let (numbers, events): (Vec<_>, Vec<_>) = std::mem::take(&mut self.batch).into_iter().unzip();
        let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else { return Ok(()) };
        let request = BatchPublishEventsRequest { project_id: self.project.clone(), events };
        let results = match self.api.batch_publish_events(request).await {
            Ok(answer) => answer.into_inner().results,
            Err(status) => {
                self.clear_progress();
                eprintln!("outrider: lines {first} to {last} were not answered, later ones not sent");
                return Err(status.into());
            }
        };
        for (number, BatchPublishEventsResult { result }) in numbers.into_iter().zip(results) {
            match result {
                Some(Outcome::Accepted(accepted)) => {
                    self.tally.accepted += 1;
                    self.tally.duplicates += u64::from(accepted.duplicate);
                    self.tally.deliveries += u64::from(accepted.delivery_count);
                    self.tally.warned += u64::from(!accepted.warnings.is_empty());
                }
                Some(Outcome::Error(status)) => self.refuse(number, &Failure::Refused(from_message(&status)).to_string()),
                None => self.refuse(number, "the server gave no result"),
            }
        }
        self.show_progress();
        Ok(())
    }

    fn refuse(&mut self, number: u64, why: &str) {
        self.tally.refused += 1;
        self.clear_progress();
        match self.tally.refused {
            told if told <= TOLD => eprintln!("line {number}: {why}"),
            told if told == TOLD + 1 => eprintln!("further refusals are counted only"),
            _ => {}
        }
    }

    fn show_progress(&self) {
        if self.progress {
            eprint!("\r\u{1b}[K{} accepted, {} refused", self.tally.accepted, self.tally.refused);
            let _ = std::io::stderr().flush();
        }
    }

    fn clear_progress(&self) {
        if self.progress {
            eprint!("\r\u{1b}[K");
        }
    }

    fn summary(&self) {
        self.clear_progress();
        let Tally { accepted, duplicates, refused, deliveries, warned } = self.tally;
        if self.json {
            let tally = json!({
                "accepted": accepted, "duplicates": duplicates, "refused": refused, "deliveries": deliveries, "warned": warned,
            });
            println!("{tally}");
        } else {
            println!(
                "{accepted} accepted ({duplicates} of them duplicates, {warned} with warnings), {refused} refused, {deliveries} deliveries"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_events_as_rest_takes_them() {
        let event = parse(
            r#"{"event_type": "a.b", "data": {"n": 1.0,  "n": 2}, "idempotencyKey": "k", "headers": {"x": "y"}, "deliver_at": "2030-01-01T00:00:00Z"}"#,
        )
        .unwrap();
        assert_eq!(event.payload.as_ref(), br#"{"n": 1.0,  "n": 2}"#);
        assert_eq!((event.event_type.as_str(), event.idempotency_key.as_str()), ("a.b", "k"));
        assert_eq!(event.headers["x"], "y");
        assert_eq!(event.deliver_at.unwrap().seconds, 1_893_456_000);
        assert_eq!(parse(r#"{"event_type": "a", "data_base64": "AP8="}"#).unwrap().payload.as_ref(), b"\0\xff");
        assert_eq!(parse(r#"{"event_type": "a", "data": null}"#).unwrap().payload.as_ref(), b"null");
    }

    #[test]
    fn bad_lines_say_why() {
        let why = |text: &str| parse(text).unwrap_err();
        assert!(why("{").contains("EOF"));
        assert!(why(r#"{"data": 1}"#).contains("event_type"));
        assert!(why(r#"{"event_type": "a", "payload": 1}"#).contains("payload"));
        assert!(why(r#"{"event_type": "a", "data": 1, "data_base64": ""}"#).contains("both"));
        assert!(why(r#"{"event_type": "a", "data_base64": "!"}"#).contains("data_base64"));
        assert!(why(r#"{"event_type": "a", "deliver_at": "soon"}"#).contains("deliver_at"));
    }
}
