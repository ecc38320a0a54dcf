//! Server streams over REST, over a real socket, and how streams end.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{LONG, Running, request, until};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use outrider_gateway::Options;
use outrider_model::Reason;
use outrider_proto::dispatch::{TailEventsRequest, event_service_client::EventServiceClient};
use outrider_rpc::from_status;
use tokio::{net::TcpStream, time::timeout};

/// An open stream of events.
struct Open {
    answer: Response<Incoming>,
    text: String,
}

impl Open {
    async fn get(running: &Running, path: &str, headers: &[(&'static str, &str)]) -> Self {
        let io = TokioIo::new(TcpStream::connect(running.address).await.unwrap());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let answer = timeout(LONG, sender.send_request(get(path, headers))).await.unwrap().unwrap();
        Self { answer, text: String::new() }
    }

    /// Returns the next event, as its lines, or `None` at the end.
    async fn next(&mut self) -> Option<Vec<String>> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let event = event.lines().map(str::to_owned).collect();
                self.text = rest.to_owned();
                return Some(event);
            }
            let frame = timeout(LONG, self.answer.body_mut().frame())
                .await
                .expect("an event or the end")?;
            self.text += std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap();
        }
    }

    /// Skips the two events with which every stream begins.
    async fn two(&mut self) {
        for _ in 0..2 {
            self.next().await.unwrap();
        }
    }

    async fn error(&mut self) -> serde_json::Value {
        let event = self.next().await.unwrap();
        assert_eq!(event[0], "event: error", "{event:?}");
        let data = event.iter().find_map(|line| line.strip_prefix("data: ")).unwrap();
        assert_eq!(self.next().await, None, "an error is the last event");
        serde_json::from_str::<serde_json::Value>(data).unwrap()["error"].clone()
    }
}

fn get(path: &str, headers: &[(&'static str, &str)]) -> Request<Full<Bytes>> {
    let mut request = request("GET", path, None);
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request
}

#[tokio::test]
async fn messages_are_events_as_they_come() {
    let running = Running::start().await;
    let mut open = Open::get(
        &running,
        "/v1/projects/p/events:tail?event_types=a.*&event_types=b&include_payload=true",
        &[],
    )
    .await;
    let headers = open.answer.headers();
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
    ] {
        assert_eq!(headers[name], value);
    }
    assert!(headers.contains_key("x-request-id") && !headers.contains_key("content-encoding"));
    assert_eq!(
        open.next().await.unwrap(),
        ["id: c0", "event: heartbeat", r#"data: {"cursor":"c0","heartbeat":{}}"#]
    );
    let event = open.next().await.unwrap();
    assert_eq!(event[..2], ["id: c1", "event: event"]);
    let data: Vec<&str> =
        event[2..].iter().map(|line| line.strip_prefix("data: ").unwrap()).collect();
    let data: serde_json::Value = serde_json::from_str(&data.join("\n")).unwrap();
    assert_eq!(
        (&data["event"]["event_id"], &data["event"]["data"]["a"]),
        (&"evt_1".into(), &1.0.into())
    );
    let asked = TailEventsRequest {
        project_id: "p".into(),
        event_types: vec!["a.*".into(), "b".into()],
        include_payload: true,
        ..Default::default()
    };
    assert_eq!(running.got.last::<TailEventsRequest>(), asked);
    assert_eq!(running.got.open_streams(), 1);
    drop(open);
    until(|| running.got.open_streams() == 0).await;
    let mut deliveries =
        Open::get(&running, "/v1/projects/p/deliveries:tail?statuses=DELIVERY_STATUS_FAILED", &[])
            .await;
    assert_eq!(deliveries.next().await.unwrap()[..2], ["id: c", "event: delivery"]);
    assert_eq!(deliveries.next().await, None);
}

#[tokio::test]
async fn a_client_goes_on_where_it_was() {
    let running = Running::start().await;
    let cursor = async |path: &str, headers: &[(&'static str, &str)]| {
        Open::get(&running, path, headers).await.next().await.unwrap();
        running.got.last::<TailEventsRequest>().cursor
    };
    let (plain, given) = ("/v1/projects/p/events:tail", "/v1/projects/p/events:tail?cursor=a");
    assert_eq!(cursor(plain, &[]).await, "");
    assert_eq!(cursor(given, &[]).await, "a");
    assert_eq!(cursor(plain, &[("last-event-id", "b")]).await, "b");
    assert_eq!(
        cursor(given, &[("last-event-id", "b")]).await,
        "b",
        "it is where the client was, not where it began"
    );
    assert_eq!(cursor(given, &[("last-event-id", "")]).await, "a");
    let twice = running.send(get(plain, &[("last-event-id", "a"), ("last-event-id", "b")])).await;
    twice.is_refused(400, "INVALID_FIELD", "last-event-id");
}

#[tokio::test]
async fn refusals_before_the_first_message_are_answers() {
    let running = Running::start().await;
    for (project, status, reason) in [
        ("missing", 404, "NOT_FOUND"),
        ("no_key", 401, "MISSING_CREDENTIALS"),
        ("full", 429, "OVERLOADED"),
    ] {
        let answer = running.get(&format!("/v1/projects/{project}/events:tail")).await;
        answer.is_refused(status, reason, "");
        assert_eq!(answer.headers["content-type"], "application/json");
    }
    let path = "/v1/projects/p/events:tail";
    running.send(get(path, &[("accept", "application/json")])).await.is_refused(
        406,
        "NOT_ACCEPTABLE",
        "",
    );
    running.get("/v1/projects/p/events:tail?unknown=1").await.is_refused(
        400,
        "MALFORMED_REQUEST",
        "unknown",
    );
    running.post(path, "{}").await.is_refused(405, "METHOD_NOT_ALLOWED", "");
    let head = running.send(request("HEAD", path, None)).await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
    assert_eq!(head.headers["content-type"], "text/event-stream");
    until(|| running.got.open_streams() == 0).await;
    running.send(request("HEAD", "/v1/projects/missing/events:tail", None)).await;
}

#[tokio::test]
async fn an_error_in_the_middle_is_the_last_event() {
    let running = Running::start().await;
    let mut open =
        Open::get(&running, "/v1/projects/fails/events:tail", &[("x-request-id", "mine")]).await;
    open.two().await;
    let error = open.error().await;
    assert_eq!(
        (&error["reason"], &error["code"], &error["request_id"]),
        (&"INVALID_CREDENTIALS".into(), &401.into(), &"mine".into())
    );
    let mut open = Open::get(&running, "/v1/projects/ends/events:tail", &[]).await;
    open.two().await;
    assert_eq!(open.next().await, None);
    // The client's deadline holds for the whole stream, and is the only one.
    let running = Running::with(Options {
        request_timeout: Duration::from_millis(200),
        ..Options::default()
    })
    .await;
    let mut open =
        Open::get(&running, "/v1/projects/p/events:tail", &[("request-timeout", "1")]).await;
    let mut longer = Open::get(&running, "/v1/projects/p/events:tail", &[]).await;
    open.two().await;
    assert_eq!(open.error().await["reason"], "DEADLINE_EXCEEDED");
    longer.two().await;
    assert!(timeout(Duration::from_millis(100), longer.next()).await.is_err(), "it is open");
    running.get("/v1/projects/hangs/events:tail").await.is_refused(504, "DEADLINE_EXCEEDED", "");
}

#[tokio::test]
async fn a_drain_is_reported_to_every_listener() {
    let mut running = Running::start().await;
    let mut events = Open::get(&running, "/v1/projects/p/events:tail", &[]).await;
    events.two().await;
    let mut busy = Open::get(&running, "/v1/projects/large/events:tail", &[]).await;
    busy.next().await.unwrap();
    let mut client = EventServiceClient::new(common::keyed(running.address).await);
    let request = TailEventsRequest { project_id: "p".into(), ..Default::default() };
    let mut grpc = client.tail_events(request).await.unwrap().into_inner();
    for _ in 0..2 {
        grpc.message().await.unwrap().unwrap();
    }
    running.shut_down();
    let event = events.next().await.unwrap();
    assert!(
        event[0] == "event: error"
            && event[1] == "retry: 100"
            && event[2].contains("SHUTTING_DOWN"),
        "{event:?}"
    );
    assert_eq!(events.next().await, None);
    let error = from_status(&timeout(LONG, grpc.message()).await.unwrap().unwrap_err());
    assert!(error.reason == Reason::ShuttingDown && error.retry_after.is_some(), "{error:?}");
    let mut last = Vec::new();
    while let Some(event) = busy.next().await {
        last = event;
    }
    assert_eq!(last[0], "event: error", "one that is never silent ends, too");
    timeout(LONG, running.served).await.expect("no stream holds up the shutdown").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_read_hold_nobody_up() {
    let running = Running::apart(Options::default()).await;
    let client = EventServiceClient::new(common::keyed(running.address).await);
    let mut unread = Vec::new();
    for _ in 0..40 {
        let request = TailEventsRequest { project_id: "large".into(), ..Default::default() };
        unread.push(client.clone().tail_events(request).await.unwrap());
    }
    // Long enough for all windows to fill. Another stream and other calls still pass.
    for _ in 0..50 {
        let answer = timeout(LONG, running.get("/v1/projects/p/events/evt_1"))
            .await
            .expect("calls are answered");
        assert_eq!(answer.status, 200);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Open::get(&running, "/v1/projects/p/events:tail", &[]).await.next().await.unwrap();
    drop(unread);
    until(|| running.got.open_streams() == 0).await;
}
