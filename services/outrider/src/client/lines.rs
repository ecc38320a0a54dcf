//! `outrider publish --lines`: many events, a JSON object per line, sent over one stream.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use outrider_proto::ingest::NewEvent;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::{ClientOptions, Failure, connection::Session, input::instant, publish::source, stream::Publisher, tally::Tally};

/// The longest line, in bytes.
const LINE_BYTES: u64 = 16 * 1024 * 1024;
/// Lines that are read ahead.
const AHEAD: usize = 32;

/// An event as REST takes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
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
    let line: Fields = serde_json::from_str(text).map_err(|error| error.to_string())?;
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

/// A line that is not blank.
#[derive(Debug)]
pub struct Line {
    /// From 1.
    pub number: u64,
    /// The event, or why it is none.
    pub event: Result<NewEvent, String>,
}

/// Publishes every line. Fails when any event was refused.
pub async fn run(options: &ClientOptions, path: &Path, stream_id: Option<String>) -> Result<(), Failure> {
    let reader = BufReader::new(source(path)?);
    let session = Session::open(options).await?;
    let (sender, mut lines) = mpsc::channel(AHEAD);
    let name = path.display().to_string();
    // A thread of its own: a read of standard input cannot be interrupted, and must hold up neither acknowledgements nor the end.
    std::thread::spawn(move || read(reader, &name, &sender));
    let mut tally = Tally::new(session.output.json);
    let outcome = Publisher::new(&session, stream_id)?.publish(&mut lines, &mut tally).await;
    tally.summary();
    outcome?;
    match tally.refused {
        0 => Ok(()),
        refused => Err(anyhow::anyhow!("{refused} of {} events were refused", tally.lines()).into()),
    }
}

/// Reads to the end, or as far as someone takes it.
fn read(mut reader: impl BufRead, name: &str, lines: &mpsc::Sender<Result<Line, Failure>>) {
    let mut text = Vec::new();
    for number in 1_u64.. {
        let line = match next(&mut reader, &mut text, number, name) {
            Ok(None) => return,
            Ok(Some(_)) if text.trim_ascii().is_empty() => continue,
            Ok(Some(_)) => {
                Ok(Line { number, event: std::str::from_utf8(&text).map_err(|_| "is not UTF-8".to_owned()).and_then(parse) })
            }
            Err(failure) => Err(failure),
        };
        let failed = line.is_err();
        if lines.blocking_send(line).is_err() || failed {
            return;
        }
    }
}

/// The length of the next line; none at the end.
fn next(reader: &mut impl BufRead, text: &mut Vec<u8>, number: u64, name: &str) -> Result<Option<usize>, Failure> {
    text.clear();
    let read = reader.by_ref().take(LINE_BYTES).read_until(b'\n', text).with_context(|| format!("cannot read {name}"))?;
    if text.len() as u64 == LINE_BYTES && !text.ends_with(b"\n") {
        return Err(Failure::Usage(format!("line {number} has more than {LINE_BYTES} bytes: nothing was sent from it on")));
    }
    Ok((read > 0).then_some(read))
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

    #[test]
    fn blank_lines_count_and_are_left_out() {
        let (sender, mut lines) = mpsc::channel(AHEAD);
        read(&b"{\"event_type\": \"a\"}\n\n  \nno\n{\"event_type\": \"b\"}"[..], "x", &sender);
        drop(sender);
        let mut read = Vec::new();
        while let Some(line) = lines.blocking_recv() {
            let line = line.ok().unwrap();
            read.push((line.number, line.event.map(|event| event.event_type).ok()));
        }
        assert_eq!(read, [(1, Some("a".to_owned())), (4, None), (5, Some("b".to_owned()))]);
    }
}
