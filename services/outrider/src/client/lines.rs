//! `outrider publish --lines`: many events, a JSON object per line, sent over one stream.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
};

use anyhow::Context;
use outrider_proto::ingest::NewEvent;
use tokio::sync::mpsc;

use super::{
    ClientOptions, Failure,
    connection::Session,
    source::source,
    stream::{Line, Publisher},
    tally::Tally,
};

/// Maximum length of a line, in bytes. No server can be configured to accept more.
const LINE_BYTES: u64 = 512 * 1024 * 1024;
/// Maximum number of lines that are read ahead.
const AHEAD: usize = 32;

/// Parses with the reader of the gateway, so that a line means the same as a body of REST.
fn parse(text: Vec<u8>) -> Result<NewEvent, String> {
    outrider_gateway::read_event(&text.into()).map_err(|error| error.message.into_owned())
}

/// Publishes every line. Fails if any event was refused.
pub async fn run(
    options: &ClientOptions,
    path: &Path,
    stream_id: Option<String>,
) -> Result<(), Failure> {
    let reader = BufReader::new(source(path)?);
    let session = Session::open(options).await?;
    let (sender, mut lines) = mpsc::channel(AHEAD);
    let name = path.display().to_string();
    // On a thread of its own, because a read of standard input cannot be interrupted, and must hold
    // up neither acknowledgments nor the end.
    std::thread::spawn(move || read(reader, &name, &sender));
    let mut tally = Tally::new(session.output.json);
    let outcome = Publisher::new(&session, stream_id)?.publish(&mut lines, &mut tally).await;
    let told = tally.summary();
    outcome?;
    told?;
    match tally.refused {
        0 => Ok(()),
        refused => {
            Err(anyhow::anyhow!("{refused} of {} events were refused", tally.lines()).into())
        }
    }
}

/// Reads to the end, or until the receiver is gone.
fn read(mut reader: impl BufRead, name: &str, lines: &mpsc::Sender<Result<Line, Failure>>) {
    let mut text = Vec::new();
    for number in 1_u64.. {
        let line = match next(&mut reader, &mut text, number, name) {
            Ok(None) => return,
            Ok(Some(_)) if text.trim_ascii().is_empty() => continue,
            Ok(Some(_)) => Ok(Line { number, event: parse(std::mem::take(&mut text)) }),
            Err(failure) => Err(failure),
        };
        let failed = line.is_err();
        if lines.blocking_send(line).is_err() || failed {
            return;
        }
    }
}

/// Returns the length of the next line, or `None` at the end.
fn next(
    reader: &mut impl BufRead,
    text: &mut Vec<u8>,
    number: u64,
    name: &str,
) -> Result<Option<usize>, Failure> {
    text.clear();
    let read = reader
        .by_ref()
        .take(LINE_BYTES)
        .read_until(b'\n', text)
        .with_context(|| format!("cannot read {name}"))?;
    if text.len() as u64 == LINE_BYTES && !text.ends_with(b"\n") {
        return Err(Failure::Usage(format!(
            "line {number} has more than {LINE_BYTES} bytes: nothing was sent from it on"
        )));
    }
    Ok((read > 0).then_some(read))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_events_as_rest_takes_them() {
        let parse = |text: &str| parse(text.as_bytes().to_vec());
        let event = parse(concat!(
            r#"{"event_type": "a.b", "data": {"n": 1.0,  "n": 2}, "idempotencyKey": "k", "#,
            r#""headers": {"x": "y"}, "deliver_at": "2030-01-01T00:00:00Z"}"#
        ))
        .unwrap();
        assert_eq!(event.payload.as_ref(), br#"{"n": 1.0,  "n": 2}"#);
        assert_eq!((event.event_type.as_str(), event.idempotency_key.as_str()), ("a.b", "k"));
        assert_eq!(event.headers["x"], "y");
        assert_eq!(event.deliver_at.unwrap().seconds, 1_893_456_000);
        assert_eq!(
            parse(r#"{"event_type": "a", "data_base64": "AP8="}"#).unwrap().payload.as_ref(),
            b"\0\xff"
        );
        assert_eq!(
            parse(r#"{"event_type": "a", "data": null}"#).unwrap().payload.as_ref(),
            b"null"
        );
        let lenient =
            "\u{feff}{\"event_type\": \"a\", \"data_base64\": \"AP8\", \"idempotency_key\": null}";
        assert_eq!(parse(lenient).unwrap().payload.as_ref(), b"\0\xff");
    }

    #[test]
    fn bad_lines_say_why() {
        let why = |text: &str| parse(text.as_bytes().to_vec()).unwrap_err();
        assert!(why("{").contains("EOF"));
        assert!(why("null").contains("object"));
        assert!(why(r#"{"event_type": "a", "payload": 1}"#).contains("payload"));
        assert!(why(r#"{"event_type": "a", "data": 1, "data_base64": ""}"#).contains("data"));
        assert!(why(r#"{"event_type": "a", "data_base64": "!"}"#).contains("data_base64"));
        assert!(why(r#"{"event_type": "a", "deliver_at": "soon"}"#).contains("deliver_at"));
        assert!(why(r#"{"event_type": "a", "headers": {"x": "1", "x": "2"}}"#).contains("headers"));
        assert!(parse(b"{\"event_type\": \"\xff\"}".to_vec()).unwrap_err().contains("UTF-8"));
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
