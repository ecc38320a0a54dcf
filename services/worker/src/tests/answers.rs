//! Answers that end at each of their bytes, come too early, or never end in one of their parts.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use outrider_model::AttemptOutcome;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf},
    net::TcpListener,
    time::Instant,
};

use super::{
    bench::{Bench, quick},
    fakes::Loopback,
    scripted::{Act, CHUNKED, OK, attempt, deliver, is_bad, is_soon, send, succeeds},
};
use crate::{
    Given,
    exchange::{Body, Client, Failure, write_through},
};

/// How the other side of a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Fin,
    Reset,
    Never,
}

/// A stream that may end with a reset.
struct Ending<S> {
    inner: S,
    end: End,
}

impl<S: AsyncRead + Unpin> AsyncRead for Ending<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        let ended = buffer.filled().len() == before;
        if ended && self.end == End::Reset {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        } else {
            Poll::Ready(Ok(()))
        }
    }
}

write_through!(Ending, AsyncWrite + Unpin);

/// Reads a request, answers, and ends as told. Reads the rest of the other side's bytes until then.
async fn serve(mut far: DuplexStream, answer: Vec<u8>, end: End) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n{}") {
        assert_ne!(far.read_buf(&mut request).await.unwrap(), 0);
    }
    let _ = far.write_all(&answer).await;
    if end == End::Never {
        let _ = far.read_to_end(&mut request).await;
    }
}

/// The result of an exchange: the status, the body and whether it was cut off, or the outcome.
type Came = Result<(u16, Vec<u8>, bool), AttemptOutcome>;

/// `room` is how many bytes the stream carries at once.
async fn exchanged(client: Arc<Client>, answer: Vec<u8>, end: End, room: usize) -> Came {
    let (near, far) = tokio::io::duplex(room);
    let server = tokio::spawn(serve(far, answer, end));
    let request: Request<Body> = Request::post("/")
        .header("content-length", 2)
        .body(Full::new(Bytes::from_static(b"{}")))
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(if end == End::Never { 1 } else { 20 });
    let result = client.exchange_on(Ending { inner: near, end }, deadline, request).await;
    server.await.unwrap();
    match result {
        Ok(answer) => Ok((answer.status, answer.body, answer.truncated)),
        Err(Failure::Attempt(outcome, _)) => Err(outcome),
        Err(Failure::TimedOut(_)) => Err(AttemptOutcome::TimedOut),
        Err(Failure::EgressUnavailable) => panic!("there is none"),
    }
}

/// Judges the result of an answer that was cut here. Its status is known from byte `known` on.
fn judge(came: &Came, (cut, known, whole): (usize, usize, usize), end: End) -> bool {
    match came {
        Ok((200, body, truncated)) => {
            cut >= known
                && b"hello".starts_with(body)
                && (*truncated || body == b"hello")
                && (cut < whole || !truncated)
        }
        Ok(_) => false,
        Err(AttemptOutcome::TimedOut) => cut < known && end == End::Never,
        Err(outcome) => {
            cut < known && end != End::Never && *outcome == AttemptOutcome::ConnectionFailed
        }
    }
}

#[tokio::test]
async fn a_connection_may_end_at_each_byte_of_an_answer() {
    const INTERIM: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    let client =
        Arc::new(Client::new(&quick(), &Given::default(), Arc::new(Loopback::default())).unwrap());
    for (head, body) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", "hello"),
        ("HTTP/1.0  200\nx-a : b\r\n folded\r\ncontent-length: 5\n\n", "hello"),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "5;a=b\r\nhello\r\n0\r\ntrailer: x\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 5\r\ntransfer-encoding : chunked\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
        ),
    ] {
        for interim in ["", INTERIM] {
            let answer = format!("{interim}{head}{body}");
            let known = interim.len() + head.find('\n').unwrap() + 1;
            let mut all = tokio::task::JoinSet::new();
            for cut in 0..=answer.len() {
                for (end, room) in
                    [(End::Fin, 4_096), (End::Fin, 1), (End::Reset, 4_096), (End::Never, 4_096)]
                {
                    let (client, answer) = (Arc::clone(&client), answer.as_bytes().to_vec());
                    all.spawn(async move {
                        let places = (cut, known, answer.len());
                        let came = exchanged(client, answer[..cut].to_vec(), end, room).await;
                        assert!(
                            judge(&came, places, end),
                            "{} at {cut}, {end:?}: {came:?}",
                            answer.escape_ascii()
                        );
                    });
                }
            }
            while let Some(done) = all.join_next().await {
                done.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn no_part_of_an_answer_goes_on_without_an_end() {
    let megabyte = "a".repeat(1 << 20);
    for acts in [
        vec![send("HTTP/1.1 200 OK\r\nx: y\r\n"), Act::Repeat(" folded\r\n")],
        vec![send("HTTP/1.1 200 OK\r\nx: y\r\n"), Act::Repeat("\t\r\n")],
        vec![send("HTTP/1.1 200 OK\r\n"), Act::Repeat(" nothing to fold\n")],
        vec![send("HTTP/1.1 200 OK\r\ncontent-length: 1"), Act::Repeat("\r\n ,1")],
        vec![send("HTTP/1.1 200 OK\r\ntransfer-encoding: a"), Act::Repeat(",a")],
        vec![
            send(format!("HTTP/1.1 200 OK\r\nx: {megabyte}\r\ncontent-length: 0\r\n\r\n")),
            Act::Hang,
        ],
        vec![
            send(format!("HTTP/1.1 200 OK\r\n{megabyte}: x\r\ncontent-length: 0\r\n\r\n")),
            Act::Hang,
        ],
        vec![send(CHUNKED), send("0\r\n"), Act::Repeat(" folded trailer\r\n")],
        vec![send(CHUNKED), send("0\r\nx: y\r\n"), Act::Repeat("\t\r\n")],
        vec![send(CHUNKED), send("1;"), Act::Drip("x".repeat(100)), Act::Hang],
        vec![send(CHUNKED), send("0\r\n"), Act::Drip("x: y\r\n".repeat(30)), Act::Hang],
        vec![send("HTTP/1.1 200 OK\r\nx: y\r\n"), Act::Drip(" folded\r\n".repeat(30)), Act::Hang],
    ] {
        let result = succeeds(acts).await;
        assert!(is_soon(&result), "{} µs", result.duration.as_micros());
    }
    let too_large = "the head of the answer is too large";
    is_bad(vec![send("HTTP/1.1 103 A\r\n"), Act::Repeat("x: y\r\n")], too_large).await;
    is_bad(vec![send("HTTP/1.1 103 A\r\nx: y\r\n"), Act::Repeat(" folded\r\n")], too_large).await;
    is_bad(vec![send(format!("HTTP/1.1 102 {megabyte}\r\n\r\n{OK}"))], too_large).await;
    is_bad(vec![Act::Repeat("x: y\r\n")], "the answer is not HTTP/1.1").await;
    is_bad(vec![send(megabyte)], "the answer is not HTTP/1.1").await;
    // Nothing more is read from the connection either.
    let result = deliver(vec![send("HTTP/1.1 204 A\r\n\r\n"), Act::Repeat(OK)]).await;
    assert_eq!(
        (result.outcome, result.response_truncated),
        (AttemptOutcome::Succeeded, false),
        "{result:?}"
    );
}

/// An endpoint that does not wait for the request. Its bytes may count as one answer or as none,
/// but never as two, and the connection is not reused.
#[tokio::test]
async fn an_answer_before_its_request_is_one_answer_at_most() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\n";
    for (early, endless) in [
        (OK.to_owned(), false),
        (OK.repeat(3), false),
        (interim.to_owned(), true),
        (OK.to_owned(), true),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let early = early.clone();
                tokio::spawn(async move {
                    while stream.write_all(early.as_bytes()).await.is_ok() && endless {}
                    // Until the other side is done.
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                });
            }
        });
        for _ in 0..20 {
            let bench = Bench::start(quick());
            let result = attempt(&bench, &format!("http://hooks.example:{port}/")).await;
            let expected = [
                AttemptOutcome::Succeeded,
                AttemptOutcome::ConnectionFailed,
                AttemptOutcome::BadResponse,
            ];
            assert!(expected.contains(&result.outcome) && is_soon(&result), "{result:?}");
            assert_eq!(bench.stop().await.len(), 1);
        }
    }
}
