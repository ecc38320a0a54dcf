//! Calls that surely were never looked at go out again: when a role ends in good order, calls that
//! were on their way to it in that moment are not its callers' trouble.
//!
//! A call was never looked at when it was not written to a connection, or when the peer says so: by
//! the number of the last call that it took, in the message that announces its end, or by refusing
//! the call. Whatever else goes wrong may have had an effect, and is told.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::Frame;
use tonic::{Status, body::Body, transport};
use tower::{Service, ServiceExt};

use crate::wire::cause;

/// Tries of one call, in all.
const TRIES: usize = 4;
/// Before another try: the channel has seen by then that its connection is gone.
const WAIT: Duration = Duration::from_millis(20);

/// Makes calls over a service such as a channel. Keeps what it sends of a call until the call is
/// answered: for calls of bounded size.
#[derive(Debug, Clone)]
pub struct Again<S>(S);

impl<S> Again<S> {
    /// Over this service.
    pub fn new(service: S) -> Self {
        Self(service)
    }
}

impl<S, E> Service<Request<Body>> for Again<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = E> + Clone + Send + 'static,
    S::Future: Send,
    E: std::error::Error + Send + 'static,
{
    type Response = Response<Body>;
    type Error = E;
    type Future = BoxFuture<'static, Result<Response<Body>, E>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        // Each try awaits the service's own readiness.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let kept =
                Arc::new(Mutex::new(Kept { body, frames: Vec::new(), ended: false, reader: 0 }));
            let mut tries = 1;
            loop {
                let body = Body::new(Reading::new(&kept, tries));
                match service.clone().oneshot(Request::from_parts(parts.clone(), body)).await {
                    Err(error) if tries < TRIES && never_processed(&error) => {
                        tracing::debug!(error = cause::words(&error), path = %parts.uri.path(), "a call that nobody looked at goes out again");
                        tries += 1;
                        tokio::time::sleep(WAIT).await;
                    }
                    outcome => return outcome,
                }
            }
        })
    }
}

/// Whether nobody acted on a call that ended with this error.
fn never_processed(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
            return true;
        }
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            // Only calls beyond the last one that the peer took end with it.
            let beyond_the_last = error.is_go_away()
                && error.is_remote()
                && error.reason() == Some(h2::Reason::NO_ERROR);
            return refused || beyond_the_last;
        }
        cause = error.source();
    }
    false
}

/// A body, and what was read of it.
struct Kept {
    body: Body,
    frames: Vec<Bytes>,
    ended: bool,
    /// Of which try the reader is that may read on.
    reader: usize,
}

/// Reads a body from its begin.
struct Reading {
    kept: Arc<Mutex<Kept>>,
    reader: usize,
    next: usize,
}

impl Reading {
    fn new(kept: &Arc<Mutex<Kept>>, reader: usize) -> Self {
        locked(kept).reader = reader;
        Self { kept: Arc::clone(kept), reader, next: 0 }
    }
}

fn locked(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl http_body::Body for Reading {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let mut kept = locked(&this.kept);
        if kept.reader != this.reader {
            return Poll::Ready(Some(Err(Status::cancelled("another try reads on"))));
        }
        while this.next == kept.frames.len() {
            if kept.ended {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut kept.body).poll_frame(cx)) {
                // Callers send no trailers.
                Some(Ok(frame)) => kept.frames.extend(frame.into_data().ok()),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => kept.ended = true,
            }
        }
        let frame = kept.frames[this.next].clone();
        this.next += 1;
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        let kept = locked(&self.kept);
        self.next == kept.frames.len() && (kept.ended || http_body::Body::is_end_stream(&kept.body))
    }
}

/// A channel whose calls go out again.
pub type Calls = Again<transport::Channel>;

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, convert::Infallible};

    use http_body_util::{BodyExt, Full, StreamBody};
    use hyper::{body::Incoming, client::conn::http2, service::service_fn};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    use super::*;

    type Answers = Arc<Mutex<VecDeque<Result<(), Failed>>>>;

    /// What a channel's error is made of: an error around that of hyper.
    #[derive(Debug, thiserror::Error)]
    #[error("transport error")]
    struct Failed(#[source] hyper::Error);

    /// Fails as told, and at last answers with what it got.
    #[derive(Clone)]
    struct Failing(Answers);

    impl Service<Request<Body>> for Failing {
        type Response = Response<Body>;
        type Error = Failed;
        type Future = BoxFuture<'static, Result<Response<Body>, Failed>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            let next = self.0.lock().unwrap().pop_front();
            Box::pin(async move {
                let mut body = request.into_body();
                // Half of it was read when it failed.
                let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
                match next {
                    Some(Err(error)) => Err(error),
                    _ => {
                        let rest = body.collect().await.unwrap().to_bytes();
                        Ok(Response::new(Body::new(Full::new([first, rest].concat().into()))))
                    }
                }
            })
        }
    }

    async fn never(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        std::future::pending().await
    }

    /// A connection of HTTP/2, and its server's end of the wire.
    async fn connection() -> (http2::SendRequest<Full<Bytes>>, tokio::task::JoinHandle<()>) {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let serving = tokio::spawn(async move {
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(far), service_fn(never)).await;
        });
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(near)).await.unwrap();
        tokio::spawn(async move {
            let _ = connection.await;
        });
        (sender, serving)
    }

    fn request() -> Request<Full<Bytes>> {
        Request::post("http://role/call").body(Full::default()).unwrap()
    }

    /// Of a call that was under way when the connection broke: who knows what came of it.
    async fn broken() -> Failed {
        let (mut sender, serving) = connection().await;
        let call = tokio::spawn(sender.send_request(request()));
        tokio::time::sleep(Duration::from_millis(50)).await;
        serving.abort();
        Failed(call.await.unwrap().unwrap_err())
    }

    /// Of a call on a connection that was gone already.
    async fn unsent() -> Failed {
        let (mut sender, serving) = connection().await;
        serving.abort();
        let _ = serving.await;
        while !sender.is_closed() {
            tokio::task::yield_now().await;
        }
        Failed(sender.send_request(request()).await.unwrap_err())
    }

    async fn call(failures: impl IntoIterator<Item = Failed>) -> (Result<Bytes, Failed>, usize) {
        let answers: Answers = Arc::new(Mutex::new(failures.into_iter().map(Err).collect()));
        let frames =
            ["one ", "two ", "three"].map(|text| Ok::<_, Status>(Frame::data(Bytes::from(text))));
        let request = Request::new(Body::new(StreamBody::new(futures::stream::iter(frames))));
        let answer = Again::new(Failing(Arc::clone(&answers))).oneshot(request).await;
        let left = answers.lock().unwrap().len();
        match answer {
            Ok(answer) => (Ok(answer.into_body().collect().await.unwrap().to_bytes()), left),
            Err(error) => (Err(error), left),
        }
    }

    #[tokio::test]
    async fn what_nobody_looked_at_goes_out_again_whole() {
        let (answer, left) = call([unsent().await, unsent().await]).await;
        assert_eq!((answer.unwrap(), left), (Bytes::from("one two three"), 0));
    }

    #[tokio::test]
    async fn what_may_have_had_an_effect_is_told_and_patience_ends() {
        let (answer, left) = call([broken().await, unsent().await]).await;
        assert!(answer.is_err() && left == 1);
        let mut failures = Vec::new();
        for _ in 0..TRIES + 1 {
            failures.push(unsent().await);
        }
        let (answer, left) = call(failures).await;
        assert!(answer.is_err() && left == 1);
    }
}
