//! Uploads of newline-delimited JSON, by clients of every kind.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use common::{Answer, BEARER, LONG, Running, backends, request, until};
use http::Request;
use http_body_util::Full;
use outrider_gateway::{Backends, Options};
use outrider_model::{Error, Reason};
use outrider_proto::ingest::{
    BatchPublishEventsRequest, BatchPublishEventsResponse, BatchPublishEventsResult,
    PublishEventRequest, PublishEventResponse, StreamEventsRequest, StreamEventsResponse,
    batch_publish_events_result::Result as Outcome,
    ingest_service_server::{IngestService, IngestServiceServer},
};
use outrider_rpc::{status::to_message, to_status};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::{Mutex, Semaphore},
};
use tonic::{Request as Call, Response, Status, Streaming, service::Routes};
use tower::util::BoxCloneSyncService;

/// An ingest role that answers by the content of the events, and records the sizes of its calls.
#[derive(Clone, Default)]
struct Ingest {
    calls: Arc<Mutex<Vec<usize>>>,
    /// Errors of the next calls.
    failures: Arc<Mutex<Vec<Error>>>,
    /// If set, a call waits for a permit.
    gate: Option<Arc<Semaphore>>,
}

type Answered<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl IngestService for Ingest {
    async fn publish_event(&self, _: Call<PublishEventRequest>) -> Answered<PublishEventResponse> {
        Err(Status::unimplemented("not here"))
    }

    async fn batch_publish_events(
        &self,
        request: Call<BatchPublishEventsRequest>,
    ) -> Answered<BatchPublishEventsResponse> {
        let request = request.into_inner();
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        if request.project_id == "no_key" {
            return Err(to_status(Error::new(Reason::InvalidCredentials, "no")));
        }
        if let Some(error) = self.failures.lock().await.pop() {
            return Err(to_status(error));
        }
        if request.events.is_empty() {
            return Err(to_status(Error::field("events", "has 0 entries")));
        }
        self.calls.lock().await.push(request.events.len());
        let result = |(index, event): (usize, outrider_proto::ingest::NewEvent)| {
            let result = match event.event_type.as_str() {
                "bad" => Outcome::Error(to_message(Error::field(
                    format!("events[{index}].payload"),
                    "must be good",
                ))),
                _ => Outcome::Accepted(PublishEventResponse {
                    event_id: String::from_utf8(event.payload.to_vec()).unwrap(),
                    ..PublishEventResponse::default()
                }),
            };
            BatchPublishEventsResult { result: Some(result) }
        };
        Ok(Response::new(BatchPublishEventsResponse {
            results: request.events.into_iter().enumerate().map(result).collect(),
        }))
    }

    type StreamEventsStream = tokio_stream::Empty<Result<StreamEventsResponse, Status>>;

    async fn stream_events(
        &self,
        _: Call<Streaming<StreamEventsRequest>>,
    ) -> Answered<Self::StreamEventsStream> {
        Err(Status::unimplemented("not here"))
    }
}

async fn running(ingest: &Ingest, options: Options) -> Running {
    let routes = Routes::new(IngestServiceServer::new(ingest.clone()));
    let backends = Backends {
        ingest: BoxCloneSyncService::new(routes.prepare()),
        ..backends(&Default::default())
    };
    Running::before(options, backends, Default::default()).await
}

const PATH: &str = "/v1/projects/p/events:batch";

fn upload(path: &str, body: &str) -> Request<Full<Bytes>> {
    let mut upload = request("POST", path, Some(body));
    upload.headers_mut().insert("content-type", "application/x-ndjson".parse().unwrap());
    upload
}

fn lines(answer: &Answer) -> Vec<Value> {
    assert_eq!(
        (answer.status.as_u16(), answer.headers["content-type"].to_str().unwrap()),
        (200, "application/x-ndjson")
    );
    answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn each_line_is_answered_in_order_and_fails_alone() {
    let ingest = Ingest::default();
    let running = running(&ingest, Options::default()).await;
    let body = "{\"event_type\":\"a\",\"data\":\"x\"}\n\n  \nnot json\r\n\
        {\"event_type\":\"bad\",\"data\":1}\n{\"nothing\":1}\nnull\n\u{b}\n\
                {\"event_type\":\"a\",\"data\":\"last\"}";
    for answer in
        [running.send(upload(PATH, body)).await, running.send_http2(upload(PATH, body)).await]
    {
        let lines = lines(&answer);
        let shape = |line: &Value| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let what = text(&line["accepted"]["event_id"]) + &text(&line["error"]["reason"]);
            (line["line"].as_u64().unwrap(), what, text(&line["error"]["violations"][0]["field"]))
        };
        let expected = [
            (1, "\"x\"", ""),
            (4, "MALFORMED_REQUEST", ""),
            (5, "INVALID_FIELD", "data"),
            (6, "MALFORMED_REQUEST", "nothing"),
            (7, "MALFORMED_REQUEST", ""),
            (8, "MALFORMED_REQUEST", ""),
            (9, "\"last\"", ""),
        ];
        let expected =
            expected.map(|(line, what, field)| (line, what.to_owned(), field.to_owned()));
        assert_eq!(lines.iter().map(shape).collect::<Vec<_>>(), expected, "{}", answer.text);
        assert_eq!(lines[2]["error"]["message"], "data: must be good");
        assert!(
            lines[1]["error"]["message"].as_str().unwrap().starts_with("the line is not JSON"),
            "{}",
            answer.text
        );
        assert_eq!(answer.headers["cache-control"], "no-store");
    }
}

#[tokio::test]
async fn a_hundred_thousand_lines_travel_in_calls_of_bounded_size() {
    let ingest = Ingest::default();
    let running = running(&ingest, Options::default()).await;
    let body: String = (1..=100_000)
        .map(|number| format!("{{\"event_type\":\"a\",\"data\":{number}}}\n"))
        .collect();
    let answer = running.send(upload(PATH, &body)).await;
    let mut expected = 0_u64;
    for line in answer.text.lines() {
        expected += 1;
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (line["line"].as_u64(), line["accepted"]["event_id"].as_str()),
            (Some(expected), Some(expected.to_string().as_str()))
        );
    }
    assert_eq!(expected, 100_000);
    let calls = ingest.calls.lock().await;
    assert!(
        calls.iter().all(|size| *size <= 1_000) && calls.len() < 2_000,
        "{} calls",
        calls.len()
    );
    // A body may be larger than the limit of a request; a line may not.
    assert!(body.len() > 3_000_000);
}

#[tokio::test]
async fn what_no_call_can_do_is_an_ordinary_error() {
    let running = running(&Ingest::default(), Options::default()).await;
    let to = |project: &str, body: &str| {
        running.send(upload(&format!("/v1/projects/{project}/events:batch"), body))
    };
    to("no_key", "{\"event_type\":\"a\"}\n").await.is_refused(401, "INVALID_CREDENTIALS", "");
    // For an unknown caller, not even invalid lines are processed.
    to("no_key", "x\n").await.is_refused(401, "INVALID_CREDENTIALS", "");
    let asking = format!(
        "POST /v1/projects/no_key/events:batch HTTP/1.1\r\nHost: x\r\nAuthorization: {BEARER}\r\n\
            Content-Type: application/x-ndjson\r\n"
    );
    let mut stranger = TcpStream::connect(running.address).await.unwrap();
    stranger
        .write_all(format!("{asking}Content-Length: 9\r\nExpect: 100-continue\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    tokio::time::timeout(LONG, stranger.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 "), "nobody asked for the body: {answer}");
    to("p", "").await.is_refused(400, "INVALID_FIELD", "events");
    to("p", " \n\n").await.is_refused(400, "INVALID_FIELD", "events");
    let only_bad = to("p", "x\n").await;
    assert_eq!(lines(&only_bad)[0]["error"]["reason"], "MALFORMED_REQUEST");
    let query = running.send(upload(&format!("{PATH}?events=1"), "{}\n")).await;
    assert_eq!(query.status, 400);
    let other = running.send(upload("/v1/projects/p/events", "{}\n")).await;
    other.is_refused(400, "MALFORMED_REQUEST", "");
}

#[tokio::test]
async fn a_call_that_fails_later_gives_its_lines_its_error() {
    let ingest = Ingest::default();
    let options = Options { upload_batch_bytes: 1, upload_calls: 1, ..Options::default() };
    let running = running(&ingest, options).await;
    // Taken from the end: the first call succeeds, the second is repeated, and its repetition
    // fails.
    let fine = Error::overloaded("later");
    ingest.failures.lock().await.extend([Error::unavailable("nobody knows"), fine]);
    let answer = running.send(upload(PATH, "x\n{\"event_type\":\"a\",\"data\":1}\n")).await;
    // The probe for the invalid line got the overload and then the failure.
    answer.is_refused(503, "UNAVAILABLE", "");
    let (mut client, mut results) = raw(&running, "Transfer-Encoding: chunked").await;
    chunk(&mut client, "{\"event_type\":\"a\",\"data\":1}\n").await;
    assert_eq!(result(&mut results).await["line"], 1);
    ingest.failures.lock().await.push(Error::unavailable("nobody knows"));
    chunk(&mut client, "{\"event_type\":\"a\",\"data\":2}\n").await;
    let failed = result(&mut results).await;
    assert_eq!(
        (&failed["line"], failed["error"]["reason"].as_str()),
        (&2.into(), Some("UNAVAILABLE"))
    );
    ingest.failures.lock().await.push(Error::overloaded("later"));
    chunk(&mut client, "{\"event_type\":\"a\",\"data\":3}\n").await;
    assert_eq!(result(&mut results).await["accepted"]["event_id"], "3");
}

type Reader = BufReader<tokio::net::tcp::OwnedReadHalf>;

/// A client that writes the body by hand, after the head of its request.
async fn raw(running: &Running, header: &str) -> (tokio::net::tcp::OwnedWriteHalf, Reader) {
    let (reader, mut writer) = TcpStream::connect(running.address).await.unwrap().into_split();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: {BEARER}\r\nContent-Type: \
            application/x-ndjson\r\n{header}\r\n\r\n"
    );
    writer.write_all(head.as_bytes()).await.unwrap();
    (writer, BufReader::new(reader))
}

async fn chunk(writer: &mut (impl AsyncWriteExt + Unpin), text: &str) {
    writer.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).await.unwrap();
}

/// Returns the next result line. The HTTP chunk framing is skipped.
async fn result(reader: &mut Reader) -> Value {
    let read = async {
        loop {
            let mut line = String::new();
            assert_ne!(reader.read_line(&mut line).await.unwrap(), 0, "the connection ended");
            if line.starts_with('{') {
                return serde_json::from_str(&line).unwrap();
            }
        }
    };
    tokio::time::timeout(LONG, read).await.unwrap()
}

#[tokio::test]
async fn results_come_while_lines_are_still_to_be_sent() {
    let running = running(&Ingest::default(), Options::default()).await;
    let (mut writer, mut reader) =
        raw(&running, "Transfer-Encoding: chunked\r\nExpect: 100-continue").await;
    let mut first = String::new();
    tokio::time::timeout(LONG, reader.read_line(&mut first)).await.unwrap().unwrap();
    assert_eq!(first, "HTTP/1.1 100 Continue\r\n");
    for number in 1..=3 {
        // Cut in the middle of a line.
        chunk(&mut writer, "{\"event_type\":\"a\",").await;
        chunk(&mut writer, &format!("\"data\":{number}}}\n")).await;
        assert_eq!(result(&mut reader).await["accepted"]["event_id"], number.to_string());
    }
    writer.write_all(b"0\r\n\r\n").await.unwrap();
    let mut rest = String::new();
    tokio::time::timeout(LONG, reader.read_line(&mut rest)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_line_over_the_limit_and_an_upload_that_stands_still() {
    let idle = Duration::from_millis(200);
    let options =
        Options { max_request_bytes: 1_000, upload_idle_timeout: idle, ..Options::default() };
    let running = running(&Ingest::default(), options).await;
    let long = format!("{{\"event_type\":\"a\",\"data\":\"{}\"}}\n", "x".repeat(100_000));
    let answer =
        running.send(upload(PATH, &format!("{long}{{\"event_type\":\"a\",\"data\":2}}\n"))).await;
    let lines = lines(&answer);
    assert_eq!(
        (lines[0]["error"]["reason"].as_str(), lines[1]["accepted"]["event_id"].as_str()),
        (Some("TOO_LARGE"), Some("2"))
    );

    let (mut writer, mut reader) = raw(&running, "Transfer-Encoding: chunked").await;
    chunk(&mut writer, "{\"event_type\":\"a\",\"data\":1}\n{\"event_type\":").await;
    assert_eq!(result(&mut reader).await["line"], 1);
    let end = result(&mut reader).await;
    assert!(end.get("line").is_none());
    assert_eq!(end["error"]["reason"], "STREAM_IDLE");
    assert!(end["error"]["request_id"].is_string());
}

/// Sends a piece again and again until the answer has arrived.
async fn keep_sending(running: &Running, piece: &str, pause: Duration) -> String {
    let (mut writer, mut reader) = raw(running, "Transfer-Encoding: chunked").await;
    let sending = async {
        loop {
            chunk(&mut writer, piece).await;
            tokio::time::sleep(pause).await;
        }
    };
    let mut answer = Vec::new();
    let ended = async {
        tokio::select! {
            () = sending => {}
            _ = reader.read_to_end(&mut answer) => {}
        }
    };
    tokio::time::timeout(LONG, ended).await.expect("it ends");
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_body_without_a_whole_line_ends_in_time() {
    // The timeout of a request has passed before that.
    let (request_timeout, upload_idle_timeout) =
        (Duration::from_secs(1), Duration::from_millis(1_500));
    let ingest = Ingest::default();
    let options = Options {
        request_timeout,
        upload_idle_timeout,
        max_request_bytes: 1_000,
        ..Options::default()
    };
    let running = running(&ingest, options).await;
    let pause = Duration::from_millis(50);
    let (line, blank, long) = (" {", " \n", "x".repeat(30_000));
    let answers = [(line, pause), (blank, pause), (long.as_str(), Duration::ZERO)];
    let answers = answers.map(|(piece, pause)| keep_sending(&running, piece, pause));
    for answer in futures::future::join_all(answers).await {
        assert!(
            answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"STREAM_IDLE\""),
            "{answer}"
        );
        assert!(answer.contains("connection: close"), "{answer}");
    }
    assert!(ingest.calls.lock().await.is_empty());
    let (mut writer, mut reader) = raw(&running, "Transfer-Encoding: chunked").await;
    chunk(&mut writer, "{\"event_type\":\"a\",\"data\":1}\n").await;
    assert_eq!(result(&mut reader).await["line"], 1);
    let dripping = tokio::spawn(async move {
        // Until it is refused with the connection.
        while writer.write_all(b"1\r\n{\r\n").await.is_ok() {
            tokio::time::sleep(pause).await;
        }
    });
    assert_eq!(result(&mut reader).await["error"]["reason"], "STREAM_IDLE");
    dripping.abort();
}

#[tokio::test]
async fn a_client_that_waits_for_results_is_not_idle() {
    let gate = Arc::new(Semaphore::new(1));
    let ingest = Ingest { gate: Some(Arc::clone(&gate)), ..Ingest::default() };
    let idle = Duration::from_millis(200);
    let running =
        running(&ingest, Options { upload_idle_timeout: idle, ..Options::default() }).await;
    let (mut writer, mut reader) = raw(&running, "Transfer-Encoding: chunked").await;
    for number in 1..=2 {
        chunk(&mut writer, &format!("{{\"event_type\":\"a\",\"data\":{number}}}\n")).await;
        until(|| gate.available_permits() == 0).await;
        tokio::time::sleep(2 * idle).await;
        gate.add_permits(1);
        assert_eq!(result(&mut reader).await["line"], number);
    }
}

#[tokio::test]
async fn uploads_are_counted_and_end_at_the_shutdown() {
    // The first call of an upload has no lines.
    let gate = Arc::new(Semaphore::new(2));
    let ingest = Ingest { gate: Some(Arc::clone(&gate)), ..Ingest::default() };
    let mut running = running(&ingest, Options { max_uploads: 1, ..Options::default() }).await;
    let (mut writer, mut reader) = raw(&running, "Transfer-Encoding: chunked").await;
    chunk(&mut writer, "{\"event_type\":\"a\",\"data\":1}\n").await;
    assert_eq!(result(&mut reader).await["line"], 1);
    gate.add_permits(1);
    let refused = running.send(upload(PATH, "{}\n")).await;
    refused.is_refused(429, "OVERLOADED", "");
    // Lines that were read are answered, and then the client is told to reconnect.
    chunk(&mut writer, "{\"event_type\":\"a\",\"data\":2}\n").await;
    until(|| gate.available_permits() == 0).await;
    running.shut_down();
    gate.add_permits(10);
    let mut last = result(&mut reader).await;
    if last.get("line").is_some() {
        assert_eq!(last["line"], 2);
        last = result(&mut reader).await;
    }
    assert_eq!(last["error"]["reason"], "SHUTTING_DOWN");
    tokio::time::timeout(LONG, running.served).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_read_is_read_no_further_and_one_that_reads_late_gets_all() {
    let ingest = Ingest::default();
    let options = Options { upload_results_bytes: 10_000, ..Options::default() };
    let running = running(&ingest, options).await;
    let (mut writer, mut reader) = raw(&running, "Transfer-Encoding: chunked").await;
    let line = format!("{{\"event_type\":\"a\",\"data\":\"{}\"}}\n", "x".repeat(10_000));
    // The buffers of sockets, of the connection and of the gateway are finite, so writing stops.
    let mut sent = 0_usize;
    while tokio::time::timeout(Duration::from_secs(1), chunk(&mut writer, &line)).await.is_ok() {
        sent += 1;
        assert!(sent < 20_000, "200 MB were taken without a result being read");
    }
    let taken: usize = ingest.calls.lock().await.iter().sum();
    assert!(taken <= sent + 1, "{taken} of {sent}");
    // The reader gets what was answered meanwhile.
    let mut bytes = vec![0; 1_000_000];
    let read = tokio::time::timeout(LONG, reader.read(&mut bytes)).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&bytes[..read]).starts_with("HTTP/1.1 200"));
}
