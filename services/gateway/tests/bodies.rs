//! Bodies that together exceed their caller's share of the room: as many are accepted as fit.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use std::convert::Infallible;

use bytes::Bytes;
use common::{BEARER, LONG, Running, framed};
use futures::{StreamExt, future::join_all, stream};
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use hyper::{body::Frame, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrider_gateway::Options;
use outrider_model::Reason;
use outrider_proto::ingest;
use outrider_rpc::from_status;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, watch},
    time::timeout,
};
use tonic::{Code, Status, body::Body};

/// A lone key may hold a quarter of the room: four bodies.
const BODY: usize = 1_000_000;
const ROOM: usize = 16 << 20;
const FIT: usize = 4;
const SENT: usize = 12;

async fn running() -> Running {
    Running::with(Options { max_buffered_bytes: ROOM, ..Options::default() }).await
}

fn json() -> String {
    let (start, end) = (r#"{"event_type":"a","data":""#, r#""}"#);
    format!("{start}{}{end}", "x".repeat(BODY - start.len() - end.len()))
}

/// Sends a body except for its last byte, which follows on a signal. Reports if the body is
/// refused.
async fn post(
    running: &Running,
    refused: mpsc::Sender<()>,
    mut go: watch::Receiver<bool>,
) -> (u16, String) {
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let head = format!(
        "POST /v1/projects/p/events HTTP/1.1\r\nhost: t\r\nauthorization: {BEARER}\r\nconnection: \
            close\r\n\
         content-type: application/json\r\ncontent-length: {BODY}\r\n\r\n"
    );
    let (body, mut answer) = (json(), String::new());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body.as_bytes()[..BODY - 1]).await.unwrap();
    tokio::select! {
        read = stream.read_to_string(&mut answer) => {
            read.unwrap();
            refused.send(()).await.unwrap();
        }
        _ = go.wait_for(|go| *go) => {
            stream.write_all(&body.as_bytes()[BODY - 1..]).await.unwrap();
            timeout(LONG, stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
        }
    }
    (answer[9..12].parse().unwrap(), answer)
}

#[tokio::test]
async fn of_bodies_beyond_the_share_as_many_are_taken_as_fit() {
    let running = running().await;
    let (refused, mut refusals) = mpsc::channel(SENT);
    let (go, told) = watch::channel(false);
    let all = join_all((0..SENT).map(|_| post(&running, refused.clone(), told.clone())));
    let when_the_rest_is_refused = async {
        for _ in FIT..SENT {
            timeout(LONG, refusals.recv()).await.expect("a refusal");
        }
        go.send(true).unwrap();
    };
    let (answers, ()) = tokio::join!(all, when_the_rest_is_refused);
    let (taken, others): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|(status, _)| *status == 200);
    assert_eq!(taken.len(), FIT, "{others:.300?}");
    for (status, answer) in others {
        assert!(
            status == 429
                && answer.contains("SHARE_EXHAUSTED")
                && answer.contains("retry-after: 1"),
            "{answer}"
        );
    }
    assert_eq!(running.got.calls().len(), FIT);
    // All room is returned.
    assert_eq!(running.post("/v1/projects/p/events", &json()).await.status, 200);
}

#[tokio::test]
async fn bodies_that_come_at_once_are_not_all_refused() {
    let running = running().await;
    let body = json();
    let answers =
        join_all((0..2 * SENT).map(|_| running.post("/v1/projects/p/events", &body))).await;
    let taken = answers.iter().filter(|answer| answer.status == 200).count();
    assert!(taken >= FIT, "{taken}");
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        answer.is_refused(429, "SHARE_EXHAUSTED", "");
    }
}

#[tokio::test]
async fn a_body_that_announces_nothing_is_counted_as_it_comes() {
    let running = running().await;
    let send = async |chunks: usize| {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        let head = format!(
            "POST /v1/projects/p/events HTTP/1.1\r\nhost: t\r\nauthorization: {BEARER}\r\n\
                connection: close\r\n\
             content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 1..chunks {
            stream
                .write_all(format!("{BODY:x}\r\n{}\r\n", " ".repeat(BODY)).as_bytes())
                .await
                .unwrap();
        }
        stream.write_all(format!("{BODY:x}\r\n{}\r\n0\r\n\r\n", json()).as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(LONG, stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
        answer
    };
    for _ in 0..=FIT {
        let taken = send(1).await;
        assert!(taken.starts_with("HTTP/1.1 200 "), "{taken}");
    }
    let refused = send(FIT + 1).await;
    assert!(
        refused.starts_with("HTTP/1.1 429 ") && refused.contains("SHARE_EXHAUSTED"),
        "{refused}"
    );
}

/// Sends a message except for its last byte, which follows on a signal. Returns the status of the
/// answer.
async fn call(
    running: &Running,
    mut go: watch::Receiver<bool>,
    refused: mpsc::Sender<()>,
) -> Status {
    let io = TokioIo::new(TcpStream::connect(running.address).await.unwrap());
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let event = ingest::NewEvent { payload: vec![b'1'; BODY].into(), ..Default::default() };
    let message =
        framed(&ingest::PublishEventRequest { project_id: "p".into(), event: Some(event) });
    let last = message.slice(message.len() - 1..);
    let waiting = go.clone();
    let last = stream::once(async move {
        let _ = go.wait_for(|go| *go).await;
        last
    });
    let pieces = (0..message.len() - 1)
        .step_by(16 << 10)
        .map(|at| message.slice(at..(at + (16 << 10)).min(message.len() - 1)));
    let frames = stream::iter(pieces.collect::<Vec<Bytes>>()).chain(last);
    let body =
        Body::new(StreamBody::new(frames.map(|data| Ok::<_, Infallible>(Frame::data(data)))));
    let path = format!("http://{}/outrider.ingest.v1.IngestService/PublishEvent", running.address);
    let request = Request::post(path).header("authorization", BEARER).header("te", "trailers");
    let request = request.header("content-type", "application/grpc").body(body).unwrap();
    let answer = timeout(LONG, sender.send_request(request)).await.expect("an answer").unwrap();
    let head = Status::from_header_map(answer.headers());
    let body = timeout(LONG, answer.into_body().collect()).await.expect("an answer").unwrap();
    let status = body.trailers().and_then(Status::from_header_map).or(head).unwrap();
    if !*waiting.borrow() {
        refused.send(()).await.unwrap();
    }
    status
}

#[tokio::test]
async fn messages_of_grpc_hold_room_by_what_their_prefix_announces() {
    let running = running().await;
    let (refused, mut refusals) = mpsc::channel(SENT);
    let (go, told) = watch::channel(false);
    let all = join_all((0..SENT).map(|_| call(&running, told.clone(), refused.clone())));
    let when_the_rest_is_refused = async {
        for _ in FIT..SENT {
            timeout(LONG, refusals.recv()).await.expect("a refusal");
        }
        go.send(true).unwrap();
    };
    let (statuses, ()) = tokio::join!(all, when_the_rest_is_refused);
    let (taken, others): (Vec<_>, Vec<_>) =
        statuses.into_iter().partition(|status| status.code() == Code::Ok);
    assert_eq!(taken.len(), FIT, "{others:?}");
    assert!(
        others.iter().all(|status| from_status(status).reason == Reason::ShareExhausted),
        "{others:?}"
    );
}
