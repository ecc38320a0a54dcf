//! `outrider publish`.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;
use outrider_proto::ingest::{
    NewEvent, PublishEventRequest, ingest_service_client::IngestServiceClient,
};
use prost_types::Timestamp;

use super::{
    ClientOptions, Failure,
    connection::{Session, WHOLE},
    input::{HEADER, METADATA, instant, map, pair},
    lines,
    source::source,
};

/// Maximum size of a payload, in bytes. No server can be configured to accept more.
const MAX_PAYLOAD_BYTES: u64 = 256 * 1024 * 1024;

#[derive(Debug, Args)]
pub struct Publish {
    /// The event's type, such as invoice.paid.
    #[arg(required_unless_present = "lines", conflicts_with = "lines", value_name = "TYPE")]
    pub event_type: Option<String>,
    /// The payload; - for standard input.
    #[arg(conflicts_with_all = ["file", "lines"])]
    pub data: Option<String>,
    /// The file with the payload; at most 256 MiB, and servers accept less by default.
    #[arg(long, value_name = "FILE", conflicts_with = "lines")]
    pub file: Option<PathBuf>,
    /// A file of events, a JSON object per line as in REST; - for standard input. They are sent
    /// over one stream.
    #[arg(long, value_name = "FILE")]
    pub lines: Option<PathBuf>,
    /// The name of the stream, 1 to 64 visible characters, to repeat an interrupted run: with the
    /// same name and lines, events that were accepted count once [default: a unique name]
    #[arg(long, value_name = "NAME", requires = "lines")]
    pub stream: Option<String>,
    #[command(flatten)]
    pub details: Details,
    // Last, because its heading in the help applies to everything that follows.
    #[command(flatten)]
    pub client: ClientOptions,
}

/// The properties of an event.
#[derive(Debug, Args)]
pub struct Details {
    /// The payload's media type [default: application/json]
    #[arg(long, value_name = "TYPE", conflicts_with = "lines")]
    pub content_type: Option<String>,
    /// A repeated publish with the same key returns the first event.
    #[arg(long, value_name = "KEY", conflicts_with = "lines")]
    pub idempotency_key: Option<String>,
    /// Events with the same key belong in one order.
    #[arg(long, value_name = "KEY", conflicts_with = "lines")]
    pub ordering_key: Option<String>,
    /// A header for the receiver; can be repeated.
    #[arg(long = "header", value_parser = pair, value_name = "NAME=VALUE",
        conflicts_with = "lines")]
    pub headers: Vec<(String, String)>,
    /// A note that is not sent; can be repeated.
    #[arg(long = "metadata", value_parser = pair, value_name = "NAME=VALUE",
        conflicts_with = "lines")]
    pub metadata: Vec<(String, String)>,
    /// The time of the first attempt, in RFC 3339.
    #[arg(long, value_parser = instant, value_name = "TIME", conflicts_with = "lines")]
    pub deliver_at: Option<Timestamp>,
}

pub async fn run(options: Publish) -> Result<(), Failure> {
    if let Some(path) = options.lines {
        return lines::run(&options.client, &path, options.stream).await;
    }
    let payload = match (options.data, options.file) {
        (Some(data), _) if data != "-" => data.into_bytes(),
        (Some(_), _) => read(Path::new("-"))?,
        (None, Some(path)) => read(&path)?,
        (None, None) => Vec::new(),
    };
    let details = options.details;
    let event = NewEvent {
        event_type: options.event_type.unwrap_or_default(),
        payload: payload.into(),
        content_type: details.content_type.unwrap_or_default(),
        idempotency_key: details.idempotency_key.unwrap_or_default(),
        headers: map(HEADER, details.headers)?,
        metadata: map(METADATA, details.metadata)?,
        ordering_key: details.ordering_key.unwrap_or_default(),
        deliver_at: details.deliver_at,
    };
    let session = Session::open(&options.client).await?;
    let request = PublishEventRequest { project_id: session.project()?, event: Some(event) };
    let answer = IngestServiceClient::new(session.service())
        .max_decoding_message_size(WHOLE)
        .publish_event(request)
        .await?
        .into_inner();
    session.output.one(&answer)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut payload = Vec::new();
    source(path)?
        .take(MAX_PAYLOAD_BYTES + 1)
        .read_to_end(&mut payload)
        .with_context(|| format!("cannot read {}", path.display()))?;
    if payload.len() as u64 > MAX_PAYLOAD_BYTES {
        return Err(Failure::Usage(format!(
            "{} has more than {MAX_PAYLOAD_BYTES} bytes",
            path.display()
        )));
    }
    Ok(payload)
}
