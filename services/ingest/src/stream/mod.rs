//! StreamEvents: events of one producer, in order, acknowledged as they are committed.
//!
//! A task per stream reads what is there, hands it on in batches, and tells what became of it; the
//! answer's body only takes its messages, and ends the task when the client is gone.

mod commit;
mod decisions;
mod open;
mod session;
#[cfg(test)]
mod tests;

use std::pin::Pin;

use futures::{Stream, StreamExt, stream};
use outrider_model::{Error, Principal, Result};
use outrider_proto::ingest::{StreamEventsRequest, StreamEventsResponse};
use outrider_rpc::to_status;
use outrider_shares::{Holder, Resource, Share, Shares};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::Status;

use crate::{Ingest, Options};

/// Messages that wait for the connection to take them.
const OUTBOUND_MESSAGES: usize = 64;

/// The messages of the server.
pub type Answer = Pin<Box<dyn Stream<Item = Result<StreamEventsResponse, Status>> + Send>>;

const STREAMS: Resource = Resource { name: "event-streams", noun: "streams of events", least: 1 };
const BYTES: Resource =
    Resource { name: "event-stream-bytes", noun: "bytes of streams of events", least: 1 };

/// What the streams of a process share.
pub struct Streams {
    places: Shares,
    /// Bytes that are read and not decided. What comes is read whole: each stream may go beyond its
    /// share by one message.
    room: Shares,
    shutdown: CancellationToken,
}

impl Streams {
    pub fn new(options: &Options, shutdown: CancellationToken) -> Self {
        let (places, room) = (
            Shares::new(STREAMS, options.max_streams),
            Shares::new(BYTES, options.stream_buffer_bytes),
        );
        Self { places, room, shutdown }
    }

    fn enter(&self, holder: Holder) -> Result<Share> {
        if self.shutdown.is_cancelled() {
            return Err(Error::shutting_down());
        }
        Ok(self.places.take(holder, 1)?)
    }
}

/// Serves a stream. Fails when too many are open: of the caller, or of all.
pub fn answer<I>(ingest: Ingest, principal: Principal, inbound: I) -> Result<Answer>
where
    I: Stream<Item = Result<StreamEventsRequest, Status>> + Send + Unpin + 'static,
{
    let place = ingest.streams().enter(Holder::of(&principal))?;
    let (out, messages) = mpsc::channel(OUTBOUND_MESSAGES);
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        let _place = place;
        open::serve(&ingest, &principal, inbound, out).await
    }));
    let end = stream::once(task).filter_map(async |ended| match ended {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(Err(to_status(error))),
        Err(_) => Some(Err(to_status(Error::internal("a fault of the server")))),
    });
    Ok(Box::pin(ReceiverStream::new(messages).map(Ok).chain(end)))
}
