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
    /// The observations of its streams.
    pub(crate) watch: Watch,
    task: AbortHandle,
    /// Allows a look at its socket.
    look: Option<Look>,
    /// Whether a request is in flight. If the connection is dropped now, nothing will read the
    /// response.
    busy: bool,
}

impl Connection {
    pub(crate) fn new(sender: SendRequest<Body>, watch: Watch, task: AbortHandle) -> Self {
        Self { sender, watch, task, look: None, busy: false }
    }

    /// Adds a look at the socket, which is used before the connection is reused.
    pub(crate) fn with_look(mut self, look: Look) -> Self {
        self.look = Some(look);
        self
    }

    /// Whether its socket, if there is a look, has nothing to read and has not ended.
    pub(super) fn is_quiet(&self) -> bool {
        self.look.as_ref().is_none_or(Look::is_quiet)
    }

    /// Marks the start of a request.
    pub(crate) fn begin(&mut self) {
        self.busy = true;
        self.watch.begin();
    }

    /// Marks the end of the exchange on both sides.
    pub(crate) fn end(&mut self) {
        self.busy = false;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The task of an idle connection closes it cleanly when it notices that the sender is gone.
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

    /// Returns an idle connection, and its other side.
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
