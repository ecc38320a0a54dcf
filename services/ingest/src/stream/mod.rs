//! StreamEvents: events of one producer, in order, acknowledged as they are committed.
//!
//! A task per stream reads the available events, hands them on in batches, and sends the outcomes.
//! The body of the answer only passes on its messages, and ends the task when the client is gone.

mod commit;
mod decisions;
mod open;
mod session;
mod streams;
#[cfg(test)]
mod tests;

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt, stream};
use outrider_model::{Error, Principal, Result};
use outrider_proto::ingest::{StreamEventsRequest, StreamEventsResponse};
use outrider_rpc::to_status;
use outrider_shares::Holder;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

pub use streams::Streams;

use crate::admission::Admission;

/// Maximum number of messages that wait for the connection.
const OUTBOUND_MESSAGES: usize = 64;

/// The messages of the server.
pub type Answer = Pin<Box<dyn Stream<Item = Result<StreamEventsResponse, Status>> + Send>>;

/// Serves a stream. Fails if too many are open: of the caller, or in total.
pub fn answer<I>(
    admission: Admission,
    streams: &Arc<Streams>,
    principal: Principal,
    inbound: I,
) -> Result<Answer>
where
    I: Stream<Item = Result<StreamEventsRequest, Status>> + Send + Unpin + 'static,
{
    let entered = streams.enter(Holder::of(&principal))?;
    let streams = Arc::clone(streams);
    let (out, messages) = mpsc::channel(OUTBOUND_MESSAGES);
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        let _entered = entered;
        open::serve(&admission, &streams, &principal, inbound, out).await
    }));
    let end = stream::once(task).filter_map(async |ended| match ended {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(Err(to_status(error))),
        Err(_) => Some(Err(to_status(Error::internal("a fault of the server")))),
    });
    Ok(Box::pin(ReceiverStream::new(messages).map(Ok).chain(end)))
}
