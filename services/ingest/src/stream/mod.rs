//! StreamEvents: events of one producer, in order, acknowledged as they are committed.
//!
//! A task per stream reads what is there, hands it on in batches, and tells what became of it; the answer's body only takes its
//! messages, and ends the task when the client is gone.

mod commit;
mod decisions;
mod open;
mod room;
mod session;
#[cfg(test)]
mod tests;

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt, stream};
use outrider_model::{Error, Principal, Result};
use outrider_proto::ingest::{StreamEventsRequest, StreamEventsResponse};
use outrider_rpc::to_status;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::Status;

use crate::{Ingest, StreamOptions};

/// Messages that wait for the connection to take them.
const OUTBOUND_MESSAGES: usize = 64;

/// The messages of the server.
pub type Answer = Pin<Box<dyn Stream<Item = Result<StreamEventsResponse, Status>> + Send>>;

/// What the streams of a process share.
pub struct Streams {
    places: Arc<Semaphore>,
    /// Bytes that are read and not decided.
    room: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Streams {
    pub fn new(options: &StreamOptions, shutdown: CancellationToken) -> Self {
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self { places: semaphore(options.max_streams), room: semaphore(options.buffer_bytes), shutdown }
    }

    fn enter(&self) -> Result<OwnedSemaphorePermit> {
        if self.shutdown.is_cancelled() {
            return Err(Error::shutting_down());
        }
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| Error::overloaded("too many streams of events are open"))
    }
}

/// Serves a stream. Fails with `Overloaded` when too many are open.
pub fn answer<I>(ingest: Ingest, principal: Principal, inbound: I) -> Result<Answer>
where
    I: Stream<Item = Result<StreamEventsRequest, Status>> + Send + Unpin + 'static,
{
    let place = ingest.streams().enter()?;
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
