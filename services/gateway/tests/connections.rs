//! Connection slots are divided: a key keeps its share, and connections beyond it make room for
//! others.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use std::time::Duration;

use common::{LONG, Running, bearer};
use outrider_gateway::Options;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// A lone key keeps four slots, and eight connections may be beyond shares.
async fn running() -> Running {
    let options = Options {
        max_connections: 16,
        reserved_connections: 4,
        request_timeout: LONG * 3,
        ..Options::default()
    };
    Running::with(options).await
}

/// Opens a connection and sends a request with this key.
async fn ask(running: &Running, key: u8, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    again(&mut stream, key, request).await;
    stream
}

/// Sends another request on the connection.
async fn again(stream: &mut TcpStream, key: u8, request: &str) {
    let text = format!(
        "{request} HTTP/1.1\r\nhost: t\r\nauthorization: {}\r\ncontent-type: application/json\r\n\
            content-length: 0\r\n\r\n",
        bearer(key)
    );
    // Reading shows whether a connection was closed.
    let _ = stream.write_all(text.as_bytes()).await;
}

/// Returns the status of the answer, or `None` if the connection is closed.
async fn status(stream: &mut TcpStream) -> Option<String> {
    let mut answer = [0; 2048];
    let read = timeout(LONG, stream.read(&mut answer))
        .await
        .expect("an answer or the end")
        .ok()
        .filter(|read| *read > 0)?;
    Some(String::from_utf8_lossy(&answer[9..read.min(12)]).into_owned())
}

const GET: &str = "GET /v1/projects/p/endpoints";
const HANG: &str = "POST /v1/projects/hangs/events";

async fn get(running: &Running, key: u8) -> TcpStream {
    let mut stream = ask(running, key, GET).await;
    assert_eq!(status(&mut stream).await.as_deref(), Some("200"), "key {key}");
    stream
}

#[tokio::test]
async fn idle_connections_of_one_key_make_room_for_others() {
    let running = running().await;
    let mut greedy = Vec::new();
    for _ in 0..20 {
        greedy.push(get(&running, 4).await);
    }
    // Each within its share.
    let mut others = Vec::new();
    for key in 5..9 {
        others.push((key, get(&running, key).await));
    }
    for _ in 0..20 {
        greedy.push(get(&running, 4).await);
    }
    for (key, stream) in &mut others {
        again(stream, *key, GET).await;
        assert_eq!(status(stream).await.as_deref(), Some("200"), "key {key} is still there");
    }
    // The first connections of the greedy key are still open too.
    for stream in &mut greedy[..4] {
        again(stream, 4, GET).await;
        assert_eq!(status(stream).await.as_deref(), Some("200"));
    }
    let mut open = 0;
    for stream in &mut greedy {
        again(stream, 4, GET).await;
        open += usize::from(status(stream).await.is_some());
    }
    assert!(open <= 8, "{open} of the greedy key are open beside the others");
}

#[tokio::test]
async fn a_connection_is_not_closed_while_its_request_is_under_way() {
    let running = running().await;
    let mut busy = Vec::new();
    for _ in 0..12 {
        busy.push(ask(&running, 4, HANG).await);
    }
    common::until(|| running.got.calls().len() == 12).await;
    let mut refused = ask(&running, 4, GET).await;
    assert_eq!(status(&mut refused).await.as_deref(), Some("429"));
    let mut others = Vec::new();
    for key in 5..9 {
        others.push(get(&running, key).await);
    }
    for stream in &mut busy {
        let read = timeout(Duration::from_millis(20), stream.read(&mut [0; 1])).await;
        assert!(read.is_err(), "it waits for its answer: {read:?}");
    }
    // All slots are taken by connections that keep them.
    assert_eq!(status(&mut ask(&running, 9, GET).await).await, None);
    // When a request has ended, its slot is free for others.
    drop(busy);
    let all = async {
        while status(&mut ask(&running, 4, GET).await).await.as_deref() != Some("200") {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, all).await.expect("the greedy key has room again");
}
