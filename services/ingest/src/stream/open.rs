//! The start of a stream: its name and its window.

use std::sync::Arc;

use futures::{Stream, StreamExt};
use outrider_model::{Error, Principal, Reason, Result, error::Violations, limits, text::span};
use outrider_proto::ingest::{
    StreamEventsRequest, StreamEventsResponse, StreamOpen, StreamOpened,
    stream_events_request::Kind, stream_events_response,
};
use outrider_rpc::{request_errors::request_error, validate};
use tokio::sync::mpsc;
use tonic::Status;

use super::{session::Session, streams::Streams};
use crate::admission::Admission;

/// Waits for the name, sends the window, and continues with the events.
pub async fn serve<I>(
    admission: &Admission,
    streams: &Arc<Streams>,
    principal: &Principal,
    mut inbound: I,
    out: mpsc::Sender<StreamEventsResponse>,
) -> Result<()>
where
    I: Stream<Item = Result<StreamEventsRequest, Status>> + Unpin,
{
    let options = admission.options();
    let open = tokio::select! {
        first = tokio::time::timeout(options.stream_open_timeout, inbound.next()) => match first {
            Ok(first) => opening(first)?,
            Err(_) => {
                let limit = span(options.stream_open_timeout);
                let message = format!("no \"open\" arrived for {limit}");
                return Err(Error::new(Reason::StreamIdle, message));
            }
        },
        () = streams.shutdown.cancelled() => return Err(Error::shutting_down()),
    };
    let mut violations = Violations::new();
    violations.check("open.stream_id", validate::key(&open.stream_id, limits::STREAM_ID_BYTES));
    violations.finish()?;
    let project = admission
        .project(principal, &open.project_id)
        .await
        .map_err(|error| error.within("open"))?;
    let opened = StreamOpened {
        window_events: options.stream_window_events,
        window_bytes: options.stream_window_bytes,
    };
    // If the client does not take even this message, it is gone.
    let _ = out
        .send(StreamEventsResponse { kind: Some(stream_events_response::Kind::Opened(opened)) })
        .await;
    Session::new(admission, streams, principal, project.id, open).run(inbound, out).await
}

fn opening(first: Option<Result<StreamEventsRequest, Status>>) -> Result<StreamOpen> {
    match first {
        Some(Ok(StreamEventsRequest { kind: Some(Kind::Open(open)) })) => Ok(open),
        Some(Ok(_)) | None => Err(Error::field("open", "must be the first message")),
        Some(Err(status)) => Err(request_error(&status)),
    }
}
