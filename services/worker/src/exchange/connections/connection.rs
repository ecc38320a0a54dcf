//! A connection to an endpoint.

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use tokio::task::AbortHandle;

use super::probe::Look;
use crate::exchange::stream::Watch;

/// The body of a request.
pub(crate) type Body = Full<Bytes>;

/// A connection to an origin, with the task that drives it.
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<Body>,
    /// What its streams found.
    pub(crate) watch: Watch,
    task: AbortHandle,
    /// For a look at its socket.
    look: Option<Look>,
    /// A request is under way: if this is dropped now, nobody will read the answer.
    busy: bool,
}

impl Connection {
    pub(crate) fn new(sender: SendRequest<Body>, watch: Watch, task: AbortHandle) -> Self {
        Self { sender, watch, task, look: None, busy: false }
    }

    /// The same, whose socket is looked at before it is used again.
    pub(crate) fn with_look(mut self, look: Look) -> Self {
        self.look = Some(look);
        self
    }

    /// Whether its socket, if it can be looked at, has nothing to read and has not ended.
    pub(super) fn is_quiet(&self) -> bool {
        self.look.as_ref().is_none_or(Look::is_quiet)
    }

    /// A request begins.
    pub(crate) fn begin(&mut self) {
        self.busy = true;
        self.watch.begin();
    }

    /// The exchange is over on both sides.
    pub(crate) fn end(&mut self) {
        self.busy = false;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // An idle one is closed in good order by its task, which sees that the sender is gone.
        if self.busy {
            self.task.abort();
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use hyper_util::rt::TokioIo;
    use tokio::io::DuplexStream;

    use super::*;
    use crate::tests::bench::until;

    /// An idle connection, and its other side.
    pub(in crate::exchange::connections) async fn connection() -> (Connection, DuplexStream) {
        let (near, far) = tokio::io::duplex(1024);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(near)).await.unwrap();
        let watch = Watch::default();
        let ending = watch.clone();
        let task = tokio::spawn(async move {
            let _ = connection.await;
            ending.end();
        });
        sender.ready().await.unwrap();
        (Connection::new(sender, watch, task.abort_handle()), far)
    }

    #[tokio::test]
    async fn a_connection_that_is_dropped_during_an_exchange_is_closed_at_once() {
        let (mut near, _far) = connection().await;
        near.begin();
        let task = near.task.clone();
        drop(near);
        until("its task to end", || task.is_finished()).await;
    }
}
