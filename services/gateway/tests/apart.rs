//! Clients of roles in other processes. Whatever a client does with frames, windows and silence on
//! connections that all clients share, it does not affect the others.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use common::{LONG, Running, framed, until};
use futures::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrider_gateway::Options;
use outrider_model::Reason;
use outrider_proto::{
    dispatch::{GetEventRequest, TailEventsRequest},
    ingest::{self, StreamEventsResponse, stream_events_request, stream_events_response},
};
use outrider_rpc::from_status;
use prost::Message;
use tokio::{net::TcpStream, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, body::Body};

const PUBLISH: &str = "/outrider.ingest.v1.IngestService/PublishEvent";
const STREAM: &str = "/outrider.ingest.v1.IngestService/StreamEvents";
const TAIL: &str = "/outrider.dispatch.v1.EventService/TailEvents";
const GET: &str = "/outrider.dispatch.v1.EventService/GetEvent";

/// An HTTP/2 connection that makes gRPC calls frame by frame.
struct Raw {
    sender: http2::SendRequest<Body>,
    base: String,
}

impl Raw {
    /// Connects with a window of this many bytes for each answer.
    async fn connect(running: &Running, window: u32) -> Self {
        let io = TokioIo::new(TcpStream::connect(running.address).await.unwrap());
        let mut builder = http2::Builder::new(TokioExecutor::new());
        let (sender, connection) =
            builder.initial_stream_window_size(window).handshake(io).await.unwrap();
        tokio::spawn(connection);
        Self { sender, base: format!("http://{}", running.address) }
    }

    async fn call(
        &mut self,
        path: &str,
        frames: impl futures::Stream<Item = Bytes> + Send + 'static,
    ) -> Response<Incoming> {
        let body =
            Body::new(StreamBody::new(frames.map(|data| Ok::<_, Infallible>(Frame::data(data)))));
        self.request(path, body, "1H").await
    }

    /// Makes a call with a timeout.
    async fn request(&mut self, path: &str, body: Body, time: &str) -> Response<Incoming> {
        let request = Request::post(format!("{}{path}", self.base)).header("grpc-timeout", time);
        let request = request.header("authorization", common::BEARER);
        let request = request
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body)
            .unwrap();
        timeout(LONG, self.sender.send_request(request)).await.expect("an answer").unwrap()
    }

    /// An open stream, and the sender of its frames.
    async fn stream(&mut self) -> (mpsc::Sender<Bytes>, Stream) {
        let (out, frames) = mpsc::channel(1);
        (out, Stream { answer: self.call(STREAM, ReceiverStream::new(frames)).await })
    }
}

struct Stream {
    answer: Response<Incoming>,
}

impl Stream {
    /// Returns the sequence number of the next acknowledgment.
    async fn acked(&mut self) -> u64 {
        let frame = timeout(LONG, self.answer.body_mut().frame())
            .await
            .expect("an answer")
            .unwrap()
            .unwrap();
        let message =
            StreamEventsResponse::decode(&frame.into_data().expect("a message")[5..]).unwrap();
        match message.kind.unwrap() {
            stream_events_response::Kind::Ack(ack) => ack.sequence,
            other => panic!("{other:?}"),
        }
    }

    /// Returns the error at the end of the stream.
    async fn end(self) -> outrider_model::Error {
        let body = timeout(LONG, self.answer.into_body().collect())
            .await
            .expect("the stream ends")
            .unwrap();
        from_status(&Status::from_header_map(body.trailers().expect("trailers")).unwrap())
    }
}

fn event(sequence: u64, payload: usize) -> Bytes {
    let event = ingest::NewEvent { payload: vec![b'1'; payload].into(), ..Default::default() };
    let event = ingest::StreamedEvent { sequence, event: Some(event), ..Default::default() };
    framed(&ingest::StreamEventsRequest { kind: Some(stream_events_request::Kind::Event(event)) })
}

fn publish() -> Bytes {
    framed(&ingest::PublishEventRequest { project_id: "p".into(), ..Default::default() })
}

async fn status(answer: Response<Incoming>) -> Status {
    let head = Status::from_header_map(answer.headers());
    let body = timeout(LONG, answer.into_body().collect()).await.expect("an answer").unwrap();
    body.trailers().and_then(Status::from_header_map).or(head).unwrap()
}

#[tokio::test]
async fn frames_without_bytes_go_no_further() {
    let running = Running::apart(Options::default()).await;
    // A role's HTTP/2 library tolerates only a hundred such frames in the life of a connection, so
    // the gateway must not pass them on.
    for _ in 0..3 {
        let empty = stream::repeat(Bytes::new()).take(60);
        let mut raw = Raw::connect(&running, 65_535).await;
        let answer = raw.call(PUBLISH, empty.chain(stream::iter([publish()]))).await;
        assert_eq!(status(answer).await.code(), tonic::Code::Ok);
        let (out, mut stream) = Raw::connect(&running, 65_535).await.stream().await;
        for _ in 0..60 {
            out.send(Bytes::new()).await.unwrap();
        }
        out.send(event(1, 10)).await.unwrap();
        assert_eq!(stream.acked().await, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_takes_hold_up_nobody_and_are_given_up() {
    let options = Options {
        max_unsent_bytes: 16 << 20,
        idle_timeout: Duration::from_secs(2),
        ..Options::default()
    };
    let running = Running::apart(options).await;
    let get = |project: &str| {
        let request = GetEventRequest { project_id: project.into(), event_id: "evt_1".into() };
        stream::iter([framed(&request)])
    };
    // Each answer is as large as the window of a call between roles, and its client takes one byte
    // of it.
    let mut unread = Raw::connect(&running, 1).await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(unread.call(GET, get("large")).await);
        assert!(answers.last().unwrap().headers().get("grpc-status").is_none());
    }
    // One caller may hold a quarter of the room: three of them.
    let mut other = Raw::connect(&running, 65_535).await;
    for _ in 0..20 {
        let refused = from_status(&status(other.call(GET, get("large")).await).await);
        assert_eq!(refused.reason, Reason::Unavailable, "{refused:?}");
        running.get("/v1/projects/large/events/evt_1").await.is_refused(503, "UNAVAILABLE", "");
    }
    assert_eq!(
        status(other.call(GET, get("p")).await).await.code(),
        tonic::Code::Ok,
        "a short answer needs no room"
    );
    let wait = async {
        while running.get("/v1/projects/large/events/evt_1").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, wait).await.expect("they are given up");
    assert_eq!(status(other.call(GET, get("large")).await).await.code(), tonic::Code::Ok);
    drop(answers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_their_role_does_not_read_stop_no_other() {
    let running = Running::apart(Options::default()).await;
    let open = stream_events_request::Kind::Open(ingest::StreamOpen {
        project_id: "hangs".into(),
        ..Default::default()
    });
    let open = framed(&ingest::StreamEventsRequest { kind: Some(open) });
    let mut stuck = Vec::new();
    for _ in 0..20 {
        let mut raw = Raw::connect(&running, 65_535).await;
        let (out, stream) = raw.stream().await;
        out.send(open.clone()).await.unwrap();
        // More than a connection between roles accepts from all of them together.
        let sender = out.clone();
        let full = async move { while sender.send(event(1, 64 << 10)).await.is_ok() {} };
        assert!(timeout(Duration::from_millis(100), full).await.is_err(), "its windows are full");
        stuck.push((raw, out, stream));
    }
    let (out, mut stream) = Raw::connect(&running, 65_535).await.stream().await;
    for sequence in 1..=3 {
        out.send(event(sequence, 1_000)).await.unwrap();
        assert_eq!(stream.acked().await, sequence);
    }
}

#[tokio::test]
async fn at_the_drain_the_message_under_way_is_taken_whole_and_no_other() {
    for apart in [false, true] {
        let mut running =
            if apart { Running::apart(Options::default()).await } else { Running::start().await };
        let (out, mut stream) = Raw::connect(&running, 65_535).await.stream().await;
        let second = event(2, 100_000);
        out.send([event(1, 10), second.slice(..50_000)].concat().into()).await.unwrap();
        assert_eq!(stream.acked().await, 1);
        running.shut_down();
        // The rest arrives with the beginning of a third message, which the gateway does not take.
        out.send([second.slice(50_000..), event(3, 10).slice(..7)].concat().into()).await.unwrap();
        assert_eq!(stream.acked().await, 2);
        let error = stream.end().await;
        assert_eq!(
            (error.reason, error.retry_after.is_some()),
            (Reason::ShuttingDown, true),
            "{error:?}"
        );
        timeout(LONG / 4, running.served).await.expect("well before its drain time").unwrap();
    }
}

/// Frames. The last one is marked as the end of the stream.
struct Ending(mpsc::Receiver<(Bytes, bool)>, bool);

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = ready!(self.0.poll_recv(cx));
        self.1 = next.as_ref().is_none_or(|(_, last)| *last);
        Poll::Ready(next.map(|(data, _)| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.1
    }
}

#[tokio::test]
async fn what_comes_with_the_clients_end_at_the_drain_is_not_called_done() {
    for apart in [false, true] {
        let mut running =
            if apart { Running::apart(Options::default()).await } else { Running::start().await };
        let (out, frames) = mpsc::channel(1);
        let mut raw = Raw::connect(&running, 65_535).await;
        let mut stream =
            Stream { answer: raw.request(STREAM, Body::new(Ending(frames, false)), "1H").await };
        let second = event(2, 1_000);
        out.send(([event(1, 10), second.slice(..500)].concat().into(), false)).await.unwrap();
        assert_eq!(stream.acked().await, 1);
        running.shut_down();
        // Once the gateway drains, only the message in progress passes.
        until(|| running.served_no_more()).await;
        out.send(([second.slice(500..), event(3, 10)].concat().into(), true)).await.unwrap();
        assert_eq!(stream.acked().await, 2);
        assert_eq!(stream.end().await.reason, Reason::ShuttingDown);
    }
}

#[tokio::test]
async fn a_stream_is_over_on_both_sides_whatever_its_client_does() {
    for apart in [false, true] {
        let options = Options { idle_timeout: Duration::from_secs(1), ..Options::default() };
        let running =
            if apart { Running::apart(options).await } else { Running::with(options).await };
        // The stream's time is up, and the client goes on sending.
        let mut raw = Raw::connect(&running, 65_535).await;
        let (out, frames) = mpsc::channel(1);
        let mut stream =
            Stream { answer: raw.request(STREAM, Body::new(Ending(frames, false)), "500m").await };
        out.send((event(1, 10), false)).await.unwrap();
        assert_eq!((stream.acked().await, running.got.open_streams()), (1, 1));
        assert_eq!(stream.end().await.reason, Reason::DeadlineExceeded);
        until(|| running.got.open_streams() == 0).await;
        // The client takes nothing of the answer.
        let mut raw = Raw::connect(&running, 1).await;
        let request = TailEventsRequest { project_id: "large".into(), ..Default::default() };
        let untaken = raw.call(TAIL, stream::iter([framed(&request)])).await;
        assert_eq!(running.got.open_streams(), 1);
        until(|| running.got.open_streams() == 0).await;
        drop((out, untaken));
    }
}

#[tokio::test]
async fn messages_of_streams_come_in_time_and_within_the_room() {
    for apart in [false, true] {
        let start = async |options| {
            if apart { Running::apart(options).await } else { Running::with(options).await }
        };
        let running =
            start(Options { request_timeout: Duration::from_millis(300), ..Options::default() })
                .await;
        let (out, mut stream) = Raw::connect(&running, 65_535).await.stream().await;
        out.send(event(1, 10)).await.unwrap();
        assert_eq!(stream.acked().await, 1);
        out.send(event(2, 1_000).slice(..500)).await.unwrap();
        assert_eq!(stream.end().await.reason, Reason::TooSlow);

        let running = start(Options { max_buffered_bytes: 64 << 10, ..Options::default() }).await;
        let (out, mut stream) = Raw::connect(&running, 65_535).await.stream().await;
        for sequence in 1..=20 {
            out.send(event(sequence, 40_000)).await.unwrap();
            assert_eq!(stream.acked().await, sequence, "what is whole is the role's");
        }
        out.send(event(21, 100_000).slice(..80_000)).await.unwrap();
        assert_eq!(stream.end().await.reason, Reason::Overloaded);

        let running = start(Options { max_request_bytes: 64 << 10, ..Options::default() }).await;
        let (out, stream) = Raw::connect(&running, 65_535).await.stream().await;
        out.send(event(1, 70_000).slice(..66_000)).await.unwrap();
        assert_eq!(stream.end().await.reason, Reason::TooLarge);

        // The announced length of the first message is too large, before the role has answered.
        let huge = stream::iter([Bytes::from_static(b"\0\xff\xff\xff\xff")]);
        let status = status(
            Raw::connect(&running, 65_535).await.call(STREAM, huge.chain(stream::pending())).await,
        )
        .await;
        assert_eq!(from_status(&status).reason, Reason::TooLarge, "{status:?}");
    }
}
