//! Sends calls again that were certainly never processed, so that the orderly shutdown of a role
//! does not fail the calls that are on their way to it.
//!
//! A call was never processed if it was not written to a connection, or if the peer says so: by
//! refusing the call, or by the number of the last call that it processed, in the message that
//! announces its shutdown (GOAWAY). Any other failure may have had an effect, and is returned.

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

/// Maximum number of attempts for one call.
const TRIES: usize = 4;
/// Wait before another attempt. By then the channel has noticed that its connection is gone.
const WAIT: Duration = Duration::from_millis(20);

/// Makes calls over a service such as a channel, and sends unprocessed ones again. It keeps the
/// body of a call until the call is answered, so it is meant for calls of bounded size.
#[derive(Debug, Clone)]
pub struct Resend<S>(S);

impl<S> Resend<S> {
    /// Wraps a service.
    pub fn new(service: S) -> Self {
        Self(service)
    }
}

impl<S, E> Service<Request<Body>> for Resend<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = E> + Clone + Send + 'static,
    S::Future: Send,
    E: std::error::Error + Send + 'static,
{
    type Response = Response<Body>;
    type Error = E;
    type Future = BoxFuture<'static, Result<Response<Body>, E>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        // Each attempt waits for the service's own readiness.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let shared = Arc::new(Mutex::new(SharedBody {
                body,
                frames: Vec::new(),
                ended: false,
                reader: 0,
            }));
            let mut tries = 1;
            loop {
                let body = Body::new(Reading::new(&shared, tries));
                match service.clone().oneshot(Request::from_parts(parts.clone(), body)).await {
                    Err(error) if tries < TRIES && never_processed(&error) => {
                        let (error, path) = (cause::words(&error), parts.uri.path());
                        tracing::debug!(error, path, "sending an unprocessed call again");
                        tries += 1;
                        tokio::time::sleep(WAIT).await;
                    }
                    outcome => return outcome,
                }
            }
        })
    }
}

/// Whether a call that ended with this error was certainly never processed.
fn never_processed(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
            return true;
        }
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            // Only calls after the last one that the peer processed end with this error.
            let beyond_the_last = error.is_go_away()
                && error.is_remote()
                && error.reason() == Some(h2::Reason::NO_ERROR);
            return refused || beyond_the_last;
        }
        cause = error.source();
    }
    false
}

/// The body of a call, and the frames that were read from it.
struct SharedBody {
    body: Body,
    frames: Vec<Bytes>,
    ended: bool,
    /// The attempt whose reader may read further.
    reader: usize,
}

/// Reads a body from its start.
struct Reading {
    shared: Arc<Mutex<SharedBody>>,
    reader: usize,
    next: usize,
}

impl Reading {
    fn new(shared: &Arc<Mutex<SharedBody>>, reader: usize) -> Self {
        locked(shared).reader = reader;
        Self { shared: Arc::clone(shared), reader, next: 0 }
    }
}

fn locked(shared: &Mutex<SharedBody>) -> MutexGuard<'_, SharedBody> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl http_body::Body for Reading {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let mut shared = locked(&this.shared);
        if shared.reader != this.reader {
            return Poll::Ready(Some(Err(Status::cancelled("another attempt reads the body"))));
        }
        while this.next == shared.frames.len() {
            if shared.ended {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut shared.body).poll_frame(cx)) {
                // Callers send no trailers.
                Some(Ok(frame)) => shared.frames.extend(frame.into_data().ok()),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => shared.ended = true,
            }
        }
        let frame = shared.frames[this.next].clone();
        this.next += 1;
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        let shared = locked(&self.shared);
        self.next == shared.frames.len()
            && (shared.ended || http_body::Body::is_end_stream(&shared.body))
    }
}

/// A channel that sends unprocessed calls again.
pub type ResendingChannel = Resend<transport::Channel>;

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, convert::Infallible};

    use http_body_util::{BodyExt, Full, StreamBody};
    use hyper::{body::Incoming, client::conn::http2, service::service_fn};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    use super::*;

    type Answers = Arc<Mutex<VecDeque<Result<(), Failed>>>>;

    /// An error that wraps one of hyper, as a channel's error does.
    #[derive(Debug, thiserror::Error)]
    #[error("transport error")]
    struct Failed(#[source] hyper::Error);

    /// Fails as configured, and finally answers with the body that it received.
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
                // Half of the body is read when it fails.
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

    /// An HTTP/2 connection, and the task of its server.
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

    /// The error of a call in flight when the connection broke: its outcome is unknown.
    async fn broken() -> Failed {
        let (mut sender, serving) = connection().await;
        let call = tokio::spawn(sender.send_request(request()));
        tokio::time::sleep(Duration::from_millis(50)).await;
        serving.abort();
        Failed(call.await.unwrap().unwrap_err())
    }

    /// The error of a call on a connection that was already closed.
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
        let answer = Resend::new(Failing(Arc::clone(&answers))).oneshot(request).await;
        let left = answers.lock().unwrap().len();
        match answer {
            Ok(answer) => (Ok(answer.into_body().collect().await.unwrap().to_bytes()), left),
            Err(error) => (Err(error), left),
        }
    }

    #[tokio::test]
    async fn an_unprocessed_call_is_sent_again_whole() {
        let (answer, left) = call([unsent().await, unsent().await]).await;
        assert_eq!((answer.unwrap(), left), (Bytes::from("one two three"), 0));
    }

    #[tokio::test]
    async fn a_call_that_may_have_had_an_effect_fails_and_attempts_are_bounded() {
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
