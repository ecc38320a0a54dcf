//! Observes a request from its head to the last byte of its answer: its log line, its counters and
//! its span.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Frame, SizeHint};
use outrider_rpc::HoldingBody;
use outrider_telemetry::{
    Hop, Kind, TraceContext,
    catalog::gateway::{REQUESTS_OPEN, STREAMS_OPEN},
    metrics::Ongoing,
};
use tonic::{Code, body::Body};

use crate::exchange::{
    answer::code_name,
    meter::{Meter, Status},
};

/// No code was seen.
const UNSEEN: u8 = u8::MAX;

/// The gRPC status of an answer, from its head or its trailers, whichever is seen first. In
/// gRPC-web, trailers are sent as bytes of the body, so they are observed before that conversion.
#[derive(Debug, Clone)]
pub(crate) struct SeenStatus(Arc<AtomicU8>);

impl SeenStatus {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU8::new(UNSEEN)))
    }

    fn look(&self, headers: &HeaderMap) {
        if let Some(status) = tonic::Status::from_header_map(headers) {
            self.set(status.code());
        }
    }

    fn set(&self, code: Code) {
        self.0.store(u8::try_from(i32::from(code)).unwrap_or(UNSEEN), Ordering::Relaxed);
    }

    fn code(&self) -> Option<Code> {
        match self.0.load(Ordering::Relaxed) {
            UNSEEN => None,
            code => Some(Code::from_i32(code.into())),
        }
    }

    /// Wraps the answer of a role so that its trailers are observed.
    pub(crate) fn watch(&self, answer: Response<Body>) -> Response<Body> {
        self.look(answer.headers());
        if self.code().is_some() {
            return answer;
        }
        let seen = self.clone();
        answer.map(|inner| Body::new(ObservedBody { inner, seen }))
    }
}

struct ObservedBody {
    inner: Body,
    seen: SeenStatus,
}

impl http_body::Body for ObservedBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.seen.look(trailers);
                }
            }
            Some(Err(status)) => self.seen.set(status.code()),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A request in flight. When it is dropped, the request has ended: with its answer, or because the
/// client went away.
pub(crate) struct Observed {
    started: Instant,
    id: HeaderValue,
    /// The trace of the span, or of the client.
    trace: Option<TraceContext>,
    hop: Hop,
    pub(crate) seen: SeenStatus,
    meter: Option<Arc<Meter>>,
    /// The HTTP status of the answer.
    status: Option<u16>,
    /// Whether the client's timeout is shorter than our own limit.
    pub(crate) client_deadline: bool,
    _open: Ongoing,
    stream: Option<Ongoing>,
}

impl Observed {
    /// Begins when the head of a request has arrived. Replaces the trace headers of the request
    /// with those of its span, or removes them.
    pub(crate) fn begin<B>(request: &mut Request<B>, id: HeaderValue) -> Self {
        let incoming = TraceContext::of_headers(request.headers());
        let hop = match &incoming {
            Some(_) => Hop::child(Kind::Server, "gateway", incoming.as_ref()),
            None => Hop::root(Kind::Server, "gateway"),
        };
        let trace = hop.or(incoming.as_ref()).cloned();
        TraceContext::settle(request.headers_mut(), trace.as_ref());
        Self {
            started: Instant::now(),
            id,
            trace,
            hop,
            seen: SeenStatus::new(),
            meter: None,
            status: None,
            client_deadline: false,
            _open: Ongoing::begin(&REQUESTS_OPEN),
            stream: None,
        }
    }

    /// Sets the route.
    pub(crate) fn on(&mut self, meter: &Arc<Meter>) {
        self.stream = meter.streams.then(|| Ongoing::begin(&STREAMS_OPEN));
        self.meter = Some(Arc::clone(meter));
    }

    /// Observes the answer to its end.
    pub(crate) fn answered(mut self, answer: Response<Body>) -> Response<Body> {
        self.status = Some(answer.status().as_u16());
        answer.map(|body| Body::new(HoldingBody::new(body, self)))
    }

    fn ended_with(&self, meter: &Meter) -> Status {
        match self.status {
            None => Status::Cancelled,
            Some(504) if self.client_deadline => Status::ClientDeadline,
            Some(status) if meter.protocol == "rest" => Status::Http(status),
            // An answer of a role without a status broke off, most often because the client went
            // away.
            Some(_) => self.seen.code().map_or(Status::Cancelled, Status::Grpc),
        }
    }

    /// Never logs the path, which is text of the client and has ids, and never a body or a header.
    fn log(&self, meter: &Meter, ended: Status) {
        let duration_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let Meter { protocol, route, .. } = meter;
        let grpc_status = match ended {
            Status::Grpc(code) => Some(code_name(code)),
            Status::Http(_) | Status::ClientDeadline => None,
            Status::Cancelled => Some("CANCELLED"),
        };
        let request_id = self.id.to_str().unwrap_or_default();
        let trace_id = self.trace.as_ref().map(TraceContext::trace_id);
        let status = self.status;
        if ended.is_failure() {
            tracing::warn!(
                protocol,
                route,
                status,
                grpc_status,
                duration_us,
                request_id,
                trace_id,
                "request failed"
            );
        } else {
            tracing::debug!(
                protocol,
                route,
                status,
                grpc_status,
                duration_us,
                request_id,
                trace_id,
                "request"
            );
        }
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        let Some(meter) = self.meter.take() else { return };
        let ended = self.ended_with(&meter);
        meter.count(ended, self.started.elapsed().as_secs_f64());
        self.hop.rename(&meter.route);
        self.hop.set("outrider.protocol", meter.protocol);
        self.hop
            .set_with("outrider.request_id", || self.id.to_str().unwrap_or_default().to_owned());
        if let Some(status) = self.status {
            self.hop.set("http.response.status_code", i64::from(status));
        }
        match ended {
            Status::Grpc(code) if code != Code::Ok => self.hop.fail(code_name(code)),
            Status::Http(500..) => self.hop.fail("the server failed"),
            Status::ClientDeadline => self.hop.fail("the client's deadline passed"),
            Status::Cancelled => self.hop.fail("the client went away"),
            _ => {}
        }
        self.log(&meter, ended);
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};
    use outrider_telemetry::catalog::gateway::REQUESTS;

    use super::*;

    /// An answer with some data and then these trailers, or none.
    fn answer(grpc_status: Option<&'static str>) -> Response<Body> {
        let trailers = grpc_status.map(|status| {
            HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                HeaderValue::from_static(status),
            )])
        });
        let frames = [Frame::data(Bytes::from_static(b"x"))]
            .into_iter()
            .chain(trailers.map(Frame::trailers));
        let frames: Vec<Result<_, tonic::Status>> = frames.map(Ok).collect();
        Response::new(Body::new(StreamBody::new(futures::stream::iter(frames))))
    }

    fn observed(meter: &Arc<Meter>) -> Observed {
        let mut observed = Observed::begin(&mut Request::new(()), HeaderValue::from_static("id"));
        observed.on(meter);
        observed
    }

    #[tokio::test]
    async fn the_status_of_grpc_is_that_of_the_trailers_once_they_are_there() {
        let meter = Arc::new(Meter::new("grpc", "POST", "/test.Observe/Trailers", true));
        let count = |status| {
            REQUESTS.with_label_values(&["grpc", "POST", "/test.Observe/Trailers", status]).get()
        };
        for (sent, status) in [(Some("0"), "OK"), (Some("14"), "UNAVAILABLE"), (None, "cancelled")]
        {
            let observed = observed(&meter);
            let seen = observed.seen.clone();
            let answer = observed.answered(seen.watch(answer(sent)));
            assert_eq!(count(status), 0, "it has not ended");
            answer.into_body().collect().await.unwrap();
            assert_eq!(count(status), 1, "{status}");
        }
        drop(observed(&meter));
        assert_eq!(count("cancelled"), 2, "no answer was made");
        drop(observed(&meter).answered(answer(Some("0"))));
        assert_eq!(count("cancelled"), 3, "nobody read the answer");
    }

    #[tokio::test]
    async fn trace_headers_are_the_clients_or_none_where_no_span_is_made() {
        const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for (sent, kept) in [(GOOD, Some(GOOD)), ("nonsense", None)] {
            let mut request = Request::builder()
                .header("traceparent", sent)
                .header("tracestate", "a=b")
                .body(())
                .unwrap();
            let observed = Observed::begin(&mut request, HeaderValue::from_static("id"));
            assert_eq!(
                request.headers().get("traceparent").map(|value| value.to_str().unwrap()),
                kept
            );
            assert_eq!(request.headers().contains_key("tracestate"), kept.is_some());
            assert_eq!(observed.trace.is_some(), kept.is_some());
        }
    }
}
